//! `Group`: a few tiles of images, transposed once and used by every probe of a work item, and the energies on them.

use std::ops::Range;

use super::energies::{SquareEnergies, mask_energies};
use crate::components::Kind;
use crate::cpu::chunks::exact_chunks_mut;
use crate::cpu::job::Job;
use crate::cpu::tile::{Pixel, Tile};
use crate::regime::fixed_point_side;
use crate::simd::{F32x16, LANES};

/// Tiles per group. More tiles share each costly sum across lanes, but the rows in use of all of them have to stay in the
/// first-level cache.
pub(crate) const TILES: usize = 2;

/// A group of tiles and the energies on it; working space of one thread.
pub(crate) struct Group<P: Pixel> {
    tiles: Vec<Tile<P>>,
    /// Number of tiles that hold images.
    filled: usize,
    /// `[tile][window]`.
    energies: Vec<F32x16>,
    /// Square windows: the rows in use.
    squares: SquareEnergies,
    /// Doubling tables of masks.
    tables: Vec<F32x16>,
}

/// Energies of a probe on some windows of a group of tiles.
pub(crate) struct EnergyBlock<'a, P: Pixel> {
    pub(crate) tiles: &'a [Tile<P>],
    pub(crate) probe: usize,
    /// The first of the windows: those of a row, or all where windows are masks.
    pub(crate) first: usize,
    /// Number of windows.
    pub(crate) count: usize,
    /// `[tile][window]`.
    pub(crate) energies: &'a [F32x16],
}

impl<P: Pixel> Group<P> {
    /// Images per group.
    pub(crate) const IMAGES: usize = TILES * LANES;

    /// Space for a job's groups.
    pub(crate) fn new(job: &Job<'_, P>) -> Self {
        Self {
            tiles: (0..TILES).map(|_| Tile::new(job.bank.image_shape()[0], job.plane())).collect(),
            filled: 0,
            energies: vec![F32x16::ZERO; TILES * job.windows_at_once()],
            squares: SquareEnergies::default(),
            tables: Vec::new(),
        }
    }

    /// Transposes image `first` and those after it into tiles, as many as fit and `shard` has.
    pub(crate) fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        let image_len = job.bank.image_len();
        let last = shard.end.min(first + Self::IMAGES);
        let images = job.pixels[first * image_len..last * image_len].chunks(LANES * image_len);
        self.filled = images.len();
        for (tile, images) in self.tiles.iter_mut().zip(images) {
            tile.load(job.isa, images);
        }
        if job.probes.iter().any(|probe| probe.regime.is_expanded()) {
            self.square(job);
        }
    }

    /// Computes what all probes of the expanded form share: squares of pixels, or their sums over windows.
    fn square(&mut self, job: &Job<'_, P>) {
        let (components, [channels, ..], (_, unit)) = (&job.mirrors[0], job.bank.image_shape(), job.bank.scale());
        let tiles = &mut self.tiles[..self.filled];
        let Some(side) = fixed_point_side(components, channels) else {
            for tile in tiles {
                tile.square(job.isa);
            }
            return;
        };
        for tile in tiles {
            self.squares.square(job.isa, components, side, job.bank.max_abs() * unit, tile);
        }
    }

    /// The tiles that hold images.
    pub(crate) fn tiles(&self) -> &[Tile<P>] {
        &self.tiles[..self.filled]
    }

    /// Computes the energies of a probe and hands them to `consume` block by block. A block is a row of windows where
    /// windows are squares, else all windows. The full window has no tiles, see [`crate::cpu::full`].
    pub(crate) fn energies(&mut self, job: &Job<'_, P>, probe: usize, mut consume: impl FnMut(EnergyBlock<'_, P>)) {
        let Self { tiles, filled, energies, squares, tables } = self;
        let (tiles, count) = (&tiles[..*filled], job.windows_at_once());
        let (values, components) = (&job.probes[probe], job.components_of(&job.probes[probe]));
        match components.kind() {
            Kind::Full => unreachable!("the full window has panels in place of tiles"),
            Kind::Masks(runs) => {
                for (tile, out) in tiles.iter().zip(exact_chunks_mut(energies, count)) {
                    mask_energies(job.isa, components, runs, tile, values, tables, out);
                }
                consume(EnergyBlock { tiles, probe, first: 0, count, energies: &energies[..tiles.len() * count] });
            }
            Kind::Square { side } => {
                let energies = &mut energies[..tiles.len() * count];
                squares.start(components, *side, values, tiles);
                for y in 0..components.height() {
                    squares.push_row(job.isa, tiles, values, energies);
                    if let Some(row) = (y + 1).checked_sub(*side) {
                        consume(EnergyBlock { tiles, probe, first: row * count, count, energies });
                    }
                }
            }
        }
    }
}
