//! `Job`: what the work items of a call share, and the walk over a shard's images, group of tiles by group of tiles.

use std::ops::Range;

use super::energy::{EnergyRows, mask_energies};
use super::isa::Isa;
use super::parts::parts_mut;
use super::probe::Probe;
use super::simd::{LANES, Lanes};
use super::tile::{Pixel, Tile};
use super::whole;
use crate::bank::Bank;
use crate::error::Result;
use crate::windows::{Kind, Windows};

/// Tiles a group where windows are many: lanes are summed over tiles before the costly sum across lanes, but the rows in
/// work of all tiles have to stay in the first-level cache.
pub(super) const TILES: usize = 2;

/// Everything the items of a pass share.
pub(super) struct Job<'a, P> {
    pub(super) bank: &'a Bank<'a>,
    pub(super) pixels: &'a [P],
    /// The windows, and their mirror image for flipped probes.
    pub(super) views: &'a [Windows; 2],
    pub(super) probes: &'a [Probe],
    pub(super) isa: Isa,
    /// Weights below `2^-cutoff` of a window's sum are left out: together at the very worst `2^-20` of it, and as a rule
    /// below `2^-30`, because few images lie just there.
    pub(super) cutoff: f64,
}

/// A group of tiles and the energies in work on it; working space of one thread.
pub(super) struct Group<P: Pixel> {
    tiles: Vec<Tile<P>>,
    filled: usize,
    energies: Vec<Lanes>,
    /// Square windows: the rows in work.
    rows: EnergyRows,
    /// Doubling tables of masks.
    tables: Vec<Lanes>,
}

/// Energies of a probe on some windows of a group of tiles.
pub(super) struct Part<'a, P: Pixel> {
    pub(super) tiles: &'a [Tile<P>],
    pub(super) probe: usize,
    /// The first of the windows; all of a row, or of the plane where windows are masks.
    pub(super) first: usize,
    /// Number of windows.
    pub(super) count: usize,
    /// `[tile][window]`.
    pub(super) energies: &'a [Lanes],
}

impl<'a, P: Pixel> Job<'a, P> {
    /// A job over all of `bank`, whose pixels are `pixels`.
    pub(super) fn new(
        bank: &'a Bank<'a>,
        pixels: &'a [P],
        views: &'a [Windows; 2],
        probes: &'a [Probe],
    ) -> Result<Self> {
        let cutoff = 20.0 + (2.0 * bank.len() as f64).log2();
        Ok(Self { bank, pixels, views, probes, isa: Isa::best()?, cutoff })
    }

    /// The same job for other probes.
    pub(super) fn with(&self, probes: &'a [Probe]) -> Self {
        Self { probes, ..*self }
    }

    /// How far above the least an energy may lie and still carry weight.
    pub(super) fn margin(&self, probe: &Probe) -> f32 {
        (self.cutoff / probe.rate) as f32
    }

    /// Pixels of a channel.
    pub(super) fn plane(&self) -> usize {
        self.views[0].height() * self.views[0].width()
    }

    /// The stored pixels of an image, `[channel][pixel]`.
    pub(super) fn image(&self, index: usize) -> &'a [P] {
        self.images(index..index + 1)
    }

    /// The stored pixels of images, one after the other.
    pub(super) fn images(&self, range: Range<usize>) -> &'a [P] {
        let len = self.bank.image_len();
        &self.pixels[range.start * len..range.end * len]
    }

    /// The windows as a probe sees them.
    pub(super) fn view(&self, probe: &Probe) -> &'a Windows {
        &self.views[usize::from(probe.flipped)]
    }

    /// Windows whose energies are computed before they are used: a row of squares, or all masks.
    pub(super) fn windows_at_once(&self) -> usize {
        let (rows, columns) = self.views[0].grid();
        if matches!(self.views[0].kind(), Kind::Masks(_)) { rows } else { columns }
    }
}

impl<P: Pixel> Group<P> {
    /// Images that fit.
    pub(super) const IMAGES: usize = TILES * LANES;

    /// Space for a job's groups.
    pub(super) fn new(job: &Job<'_, P>) -> Self {
        Self {
            tiles: (0..TILES).map(|_| Tile::new(job.bank.image_shape()[0], job.plane())).collect(),
            filled: 0,
            energies: vec![Lanes::ZERO; TILES * job.windows_at_once()],
            rows: EnergyRows::default(),
            tables: Vec::new(),
        }
    }

    /// Transposes the images from `first` on into tiles, as many as `shard` has and fit.
    pub(super) fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        let image_len = job.bank.image_len();
        let last = shard.end.min(first + Self::IMAGES);
        let parts = job.pixels[first * image_len..last * image_len].chunks(LANES * image_len);
        self.filled = parts.len();
        for (tile, part) in self.tiles.iter_mut().zip(parts) {
            tile.load(job.isa, part);
        }
        if job.probes.iter().any(|probe| probe.expanded) {
            self.square(job);
        }
    }

    /// Computes what the expanded form shares among probes: squares of pixels, or of windows.
    fn square(&mut self, job: &Job<'_, P>) {
        let (windows, [channels, ..], (_, unit)) = (&job.views[0], job.bank.image_shape(), job.bank.scale());
        let tiles = &mut self.tiles[..self.filled];
        let Some(side) = whole::side(windows, channels) else {
            for tile in tiles {
                tile.square(job.isa);
            }
            return;
        };
        for tile in tiles {
            self.rows.square(job.isa, windows, side, job.bank.reach() * unit, tile);
        }
    }

    /// The tiles that hold images.
    pub(super) fn tiles(&self) -> &[Tile<P>] {
        &self.tiles[..self.filled]
    }

    /// Computes the energies of a probe and hands them to `take` as they come: a row of windows at a time where windows are
    /// squares. The full window is not for tiles, see [`super::panel`].
    pub(super) fn energies(&mut self, job: &Job<'_, P>, probe: usize, mut take: impl FnMut(Part<'_, P>)) {
        let Self { tiles, filled, energies, rows, tables } = self;
        let (tiles, count) = (&tiles[..*filled], job.windows_at_once());
        let (values, windows) = (&job.probes[probe], job.view(&job.probes[probe]));
        match windows.kind() {
            Kind::Full => unreachable!("the full window has panels in place of tiles"),
            Kind::Masks(runs) => {
                for (tile, out) in tiles.iter().zip(parts_mut(energies, count)) {
                    mask_energies(job.isa, windows, runs, tile, values, tables, out);
                }
                take(Part { tiles, probe, first: 0, count, energies: &energies[..tiles.len() * count] });
            }
            Kind::Square { side } => {
                let energies = &mut energies[..tiles.len() * count];
                rows.start(windows, *side, values, tiles.len());
                for y in 0..windows.height() {
                    rows.next(job.isa, windows, tiles, values, energies);
                    if let Some(row) = (y + 1).checked_sub(*side) {
                        take(Part { tiles, probe, first: row * count, count, energies });
                    }
                }
            }
        }
    }
}
