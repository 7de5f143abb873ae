//! Every stage of the CPU engine by itself, for the benchmarks only.
//!
//! A value holds the inputs of the stages of one route, and each method runs one stage once. The images are bytes, at least
//! [`IMAGES_PER_TILE`] of them, one after the other.

use std::hint::black_box;
use std::ops::Range;

use crate::bank::{Bank, Pixels};
use crate::components::{Components, Kind};
use crate::cpu::dense::accumulate::Accumulate;
use crate::cpu::dense::box_adjoint::BoxAdjoint;
use crate::cpu::dense::energies::{MaskSpace, SquareEnergies, mask_energies};
use crate::cpu::dense::masks::MaskAdjoint;
use crate::cpu::dense::online_softmax::{Normalise, OnlineSoftmax, Softmax, Update};
use crate::cpu::dense::residuals::{EXPANDED, Grid};
use crate::cpu::full::image_panel::{ImagePanel, QueryPanel};
use crate::cpu::full::pixel_panel::{AddMeans, IMAGES, PixelPanel, vectors};
use crate::cpu::images::Images;
use crate::cpu::peak::{self as fma, Chains};
use crate::cpu::probe::Probe;
use crate::cpu::sparse::fixed_point_scan::{FixedPointProbe, FixedPointTile};
use crate::cpu::tile::Tile;
use crate::error::Result;
use crate::query::Queries;
use crate::regime::{fixed_point_side, negligible_bits};
use crate::simd::{F32x16, Isa, LANES, U16_LANES};

/// The centre of bytes.
const CENTRE: f32 = 127.5;

/// Images side by side in a tile.
pub const IMAGES_PER_TILE: usize = LANES;

/// Images side by side in a tile of the scan in fixed point.
pub const IMAGES_PER_SCAN_TILE: usize = U16_LANES;

/// Vectors that [`peak`] works on.
pub const CHAINS: usize = fma::CHAINS;

/// Images of a panel of pixels.
pub const IMAGES_PER_PANEL: usize = IMAGES;

/// The CPU's peak, for comparison: `rounds` fused multiply-adds of every lane of [`CHAINS`] vectors, on one thread.
pub fn peak(rounds: usize) -> Result<()> {
    black_box(Isa::best()?.run(Chains { rounds, factor: &F32x16::splat(0.5) }));
    Ok(())
}

/// The stages of the dense route for one query on a tile of sixteen images.
#[derive(Debug)]
pub struct Dense<'a> {
    isa: Isa,
    components: &'a Components,
    pixels: Images<'a, u8>,
    tile: Tile<u8>,
    probe: Probe,
    squares: SquareEnergies,
    masks: MaskSpace,
    energies: Vec<F32x16>,
    state: OnlineSoftmax,
    shift: Vec<f32>,
    scale: Vec<f32>,
    active: Vec<bool>,
    weights: Vec<F32x16>,
    adjoint: BoxAdjoint,
    coefficients: Vec<F32x16>,
    sums: Vec<f32>,
}

impl<'a> Dense<'a> {
    /// Prepares the first of `queries` and the first images of a bank of bytes.
    pub fn new(bank: &Bank<'a>, components: &'a Components, queries: &Queries<'_>) -> Result<Self> {
        let isa = Isa::best()?;
        let [channels, height, width] = bank.image_shape();
        let pixels = &bytes_of(bank)[..LANES * bank.image_len()];
        let mut tile = Tile::new(channels, height * width);
        let pixels = Images::side_by_side(pixels, bank.image_len());
        tile.load(isa, &pixels, CENTRE);
        tile.square(isa);
        let mut squares = SquareEnergies::default();
        if let Some(side) = fixed_point_side(components, channels) {
            squares.square(isa, Grid::of(components, side, &tile), 127.5, &mut tile, || false);
        }
        let (count, (rows, _)) = (components.count(), components.grid());
        let mut state = OnlineSoftmax::default();
        state.start(&vec![f64::MAX; count], negligible_bits(LANES) as f32);
        let mut stages = Self {
            isa,
            components,
            pixels,
            tile,
            probe: Probe::new(bank, components, queries.image(0).view(), queries.sigma()[0], 0, false),
            squares,
            masks: MaskSpace::default(),
            energies: vec![F32x16::ZERO; count],
            state,
            shift: Vec::new(),
            scale: vec![1.0 / LANES as f32; count],
            active: vec![false; rows],
            weights: vec![F32x16::ZERO; count],
            adjoint: BoxAdjoint::default(),
            coefficients: vec![F32x16::ZERO; height * width],
            sums: vec![0.0; bank.image_len()],
        };
        stages.energies();
        let logit_scale = stages.probe.logit_scale as f32;
        let least = stages.energies.iter().map(|energy| energy.0.iter().copied().fold(f32::MAX, f32::min));
        stages.shift = least.map(|least| (least * logit_scale).round()).collect();
        stages.normalise();
        Ok(stages)
    }

    /// Transposes the images.
    pub fn tile(&mut self) {
        self.tile.load(self.isa, black_box(&self.pixels), CENTRE);
    }

    /// Squares of pixels, summed over channels.
    pub fn tile_squares(&mut self) {
        self.tile.square(self.isa);
    }

    /// Energies of all windows.
    pub fn energies(&mut self) {
        let Self { isa, components, tile, probe, squares, masks, energies, .. } = self;
        match components.kind() {
            Kind::Full => {}
            Kind::Masks(runs) => mask_energies(*isa, components, runs, tile, probe, masks, energies),
            Kind::Square { side } => {
                let (_, columns) = components.grid();
                squares.start(Grid::of(components, *side, tile), probe.terms(), 1);
                for y in 0..components.height() {
                    let row = (y + 1).saturating_sub(*side);
                    let out = &mut energies[row * columns..][..columns];
                    squares.push_row(*isa, std::slice::from_ref(tile), probe.terms(), out);
                }
            }
        }
    }

    /// The update of the online softmax.
    pub fn update(&mut self) {
        let (count, (_, columns)) = (self.components.count(), self.components.grid());
        let (energies, logit_scale) = (&self.energies[..], self.probe.logit_scale as f32);
        self.isa.run(Update { energies, count, first: 0, logit_scale, columns, state: &mut self.state });
    }

    /// Normalised weights.
    pub fn normalise(&mut self) {
        let Self { isa, components, probe, energies, shift, scale, active, weights, .. } = self;
        let (_, columns) = components.grid();
        let softmax = Softmax { shift, scale, logit_scale: probe.logit_scale as f32, cutoff: 45.0 };
        isa.run(Normalise { energies, softmax, columns, active, weights });
    }

    /// Coefficients of all pixels.
    pub fn adjoint(&mut self) {
        let Self { isa, components, active, weights, adjoint, coefficients, .. } = self;
        match components.kind() {
            Kind::Full => {}
            Kind::Masks(runs) => {
                isa.run(MaskAdjoint { weights, active, runs, width: components.width(), out: coefficients });
            }
            Kind::Square { side } => {
                let (rows, columns) = components.grid();
                adjoint.start(components, *side);
                for (y, out) in coefficients.chunks_exact_mut(components.width()).enumerate() {
                    if y < rows {
                        adjoint.next_row().copy_from_slice(&weights[y * columns..][..columns]);
                    }
                    adjoint.push_row(*isa, y < rows && active[y], out);
                }
            }
        }
    }

    /// Coefficients times images, accumulated over `terms` tiles, two at a time.
    pub fn accumulate<const TERMS: usize>(&mut self) {
        let Self { isa, tile, coefficients, sums, .. } = self;
        let plane = coefficients.len();
        let terms = [(&*tile, coefficients.as_slice()); TERMS];
        isa.run(Accumulate { terms: &terms, first: 0, plane, sums: black_box(sums) });
    }
}

/// The stages of the scan in fixed point for one query on a tile of 32 images.
#[derive(Debug)]
pub struct Scan<'a> {
    isa: Isa,
    components: &'a Components,
    side: usize,
    pixels: Images<'a, u8>,
    image_len: usize,
    tile: FixedPointTile,
    probe: FixedPointProbe,
}

impl<'a> Scan<'a> {
    /// Prepares the first of `queries`, where images within `margin` of the best matter; none where it does not fit sixteen
    /// bits, or where windows are no short squares.
    pub fn new(
        bank: &Bank<'a>,
        components: &'a Components,
        queries: &Queries<'_>,
        margin: f32,
    ) -> Result<Option<Self>> {
        let Some(side) = crate::regime::fixed_point_scan_side(components) else { return Ok(None) };
        let probe = Probe::new(bank, components, queries.image(0).view(), queries.sigma()[0], 0, false);
        let values = side * side * bank.image_shape()[0];
        let Some(probe) = FixedPointProbe::new(&probe, values, margin) else { return Ok(None) };
        let (isa, image_len) = (Isa::best()?, bank.image_len());
        let pixels = &bytes_of(bank)[..U16_LANES * image_len];
        let mut tile = FixedPointTile::default();
        let pixels = Images::side_by_side(pixels, image_len);
        tile.load(isa, &pixels, image_len);
        Ok(Some(Self { isa, components, side, pixels, image_len, tile, probe }))
    }

    /// Transposes the images.
    pub fn tile(&mut self) {
        self.tile.load(self.isa, black_box(&self.pixels), self.image_len);
    }

    /// Energies of all windows.
    pub fn energies(&mut self) {
        let Self { isa, components, side, tile, probe, .. } = self;
        tile.energies(*isa, components, *side, probe, |_, energies| {
            black_box(energies);
        });
    }
}

/// The stages of the full route for `probes` queries on a part of some images.
#[derive(Debug)]
pub struct Full<'a> {
    isa: Isa,
    pixels: Images<'a, u8>,
    image_len: usize,
    part: Range<usize>,
    images: ImagePanel<u8>,
    queries: Vec<QueryPanel>,
    energies: Vec<F32x16>,
    panel: PixelPanel,
    weights: Vec<[f32; IMAGES]>,
    sums: Vec<Vec<F32x16>>,
}

impl<'a> Full<'a> {
    /// Prepares `probes` queries of constant values and the first part of a bank of bytes.
    pub fn new(bank: &Bank<'a>, probes: usize) -> Result<Self> {
        let image_len = bank.image_len();
        let parts: Vec<_> = PixelPanel::parts(image_len).collect();
        let values = vec![vec![F32x16::splat(0.5); vectors(image_len)]; probes];
        let of_probes: Vec<_> = values.iter().map(|values| (values.as_slice(), EXPANDED)).collect();
        let mut stages = Self {
            isa: Isa::best()?,
            pixels: Images::side_by_side(&bytes_of(bank)[..IMAGES * image_len], image_len),
            image_len,
            part: parts[0].clone(),
            images: ImagePanel::default(),
            queries: QueryPanel::all(&of_probes, &parts),
            energies: vec![F32x16::ZERO; probes],
            panel: PixelPanel::default(),
            weights: vec![[0.1; IMAGES]; probes],
            sums: vec![vec![F32x16::ZERO; vectors(image_len)]; probes],
        };
        stages.load_pixels();
        stages.load_images();
        Ok(stages)
    }

    /// Pixels of the part of an image.
    #[must_use]
    pub fn part_len(&self) -> usize {
        self.part.len() * LANES
    }

    /// Lays out [`IMAGES_PER_PANEL`] images for their means.
    pub fn load_pixels(&mut self) {
        self.panel.load(self.isa, black_box(&self.pixels), CENTRE, self.image_len, self.part.clone());
    }

    /// Weighted means of those images.
    pub fn means(&mut self) {
        let Self { isa, panel, weights, sums, .. } = self;
        isa.run(AddMeans { panel, weights, fresh: false, sums: black_box(sums) });
    }

    /// Lays out [`IMAGES_PER_TILE`] images for their energies.
    pub fn load_images(&mut self) {
        self.images.load(self.isa, black_box(&self.pixels[..LANES]), CENTRE, self.image_len, self.part.clone());
    }

    /// Energies of those images.
    pub fn energies(&mut self) {
        for queries in &self.queries {
            self.images.add(self.isa, queries, &mut self.energies);
        }
    }
}

/// The pixels of a bank of bytes; none of a bank of floats.
fn bytes_of<'a>(bank: &Bank<'a>) -> &'a [u8] {
    match bank.pixels() {
        Pixels::U8(pixels) => pixels,
        Pixels::F32(_) => &[],
    }
}
