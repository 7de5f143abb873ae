//! Energies: the squared distance of probes to sixteen images on every window (less a constant in the expanded form).

use super::isa::{Isa, dispatched};
use super::probe::Probe;
use super::simd::{LANES, Lanes, Vector};
use super::slide::{Roll, RowSlider, slide_row};
use super::tile::{Pixel, Tile};
use crate::runs::Runs;
use crate::windows::{Kind, Windows};

/// Most probes a kernel takes at once: they share the conversion of the pixels.
pub const PROBES: usize = 2;

/// Working space of the energy kernels; grows to what a call needs and is kept between calls.
#[derive(Debug, Default)]
pub struct EnergySpace {
    sliders: [RowSlider; PROBES],
    /// A row of errors for each probe, and the tails of a row's blocks.
    rows: Vec<Lanes>,
    /// Doubling tables of the mask kernels.
    tables: Vec<Lanes>,
}

/// The size of the images.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    channels: usize,
    height: usize,
    width: usize,
}

/// Writes for one or two probes of one form the energy of every window to `out[probe][window]`; lanes without an image
/// get `f32::MAX`.
pub fn energies<P: Pixel>(
    isa: Isa,
    windows: &Windows,
    tile: &Tile<P>,
    probes: &[&Probe],
    space: &mut EnergySpace,
    out: &mut [&mut [Lanes]],
) {
    let (height, width) = (windows.height(), windows.width());
    let shape = Shape { channels: tile.pixels.len() / (height * width), height, width };
    match windows.kind() {
        Kind::Full => full(isa, tile, probes, shape, out),
        Kind::Square { side } => square(isa, tile, probes, shape, *side, space, out),
        Kind::Masks(runs) => masks(isa, tile, probes, shape, runs, space, out),
    }
    if tile.valid < LANES {
        for energy in out.iter_mut().flat_map(|out| out.iter_mut()) {
            energy.0[tile.valid..].fill(f32::MAX);
        }
    }
}

dispatched! {
    fn full<P: Pixel>(tile: &Tile<P>, probes: &[&Probe], shape: Shape, out: &mut [&mut [Lanes]]) = full_body
}

dispatched! {
    fn square<P: Pixel>(
        tile: &Tile<P>,
        probes: &[&Probe],
        shape: Shape,
        side: usize,
        space: &mut EnergySpace,
        out: &mut [&mut [Lanes]],
    ) = square_body
}

dispatched! {
    fn masks<P: Pixel>(
        tile: &Tile<P>,
        probes: &[&Probe],
        shape: Shape,
        runs: &Runs,
        space: &mut EnergySpace,
        out: &mut [&mut [Lanes]],
    ) = masks_body
}

/// What becomes of the errors of a row's pixels. A trait and not a closure: a method that must be inlined always is,
/// and only then are its vector instructions not calls.
trait Sink<V, const Q: usize> {
    fn put(&mut self, x: usize, errors: [V; Q]);
}

/// Adds all errors up.
struct Total<V, const Q: usize>([V; Q]);

impl<V: Vector, const Q: usize> Sink<V, Q> for Total<V, Q> {
    #[inline(always)]
    fn put(&mut self, _x: usize, errors: [V; Q]) {
        for q in 0..Q {
            self.0[q] = self.0[q].add(errors[q]);
        }
    }
}

/// Writes the errors of each probe to a row.
struct Rows<'a, const Q: usize>([&'a mut [Lanes]; Q]);

impl<V: Vector, const Q: usize> Sink<V, Q> for Rows<'_, Q> {
    #[inline(always)]
    fn put(&mut self, x: usize, errors: [V; Q]) {
        for q in 0..Q {
            errors[q].store(&mut self.0[q][x]);
        }
    }
}

/// Writes sums of `SIDE` neighbouring errors to rows, without a detour through memory.
struct ShortSums<'a, V, const Q: usize, const SIDE: usize>([Roll<V, SIDE>; Q], [&'a mut [Lanes]; Q]);

impl<V: Vector, const Q: usize, const SIDE: usize> Sink<V, Q> for ShortSums<'_, V, Q, SIDE> {
    #[inline(always)]
    fn put(&mut self, x: usize, errors: [V; Q]) {
        for q in 0..Q {
            let sum = self.0[q].push(errors[q]);
            if x + 1 >= SIDE {
                sum.store(&mut self.1[q][x + 1 - SIDE]);
            }
        }
    }
}

#[inline(always)]
fn full_body<V: Vector, P: Pixel>(tile: &Tile<P>, probes: &[&Probe], shape: Shape, out: &mut [&mut [Lanes]]) {
    match (probes, out) {
        ([a, b], [first, second]) => {
            let [x, y] = full_of::<V, P, 2>(tile, [a, b], shape);
            x.store(&mut first[0]);
            y.store(&mut second[0]);
        }
        (probes, out) => {
            for (probe, out) in probes.iter().zip(out) {
                full_of::<V, P, 1>(tile, [probe], shape)[0].store(&mut out[0]);
            }
        }
    }
}

#[inline(always)]
fn full_of<V: Vector, P: Pixel, const Q: usize>(tile: &Tile<P>, probes: [&Probe; Q], shape: Shape) -> [V; Q] {
    // Rows are summed apart so that rounding grows with the root of the row length and not of the image.
    let mut total = Total([V::splat(0.0); Q]);
    for y in 0..shape.height {
        let mut row = Total([V::splat(0.0); Q]);
        errors_of_row::<V, P, Q>(tile, probes, shape, y, &mut row);
        total.put(0, row.0);
    }
    total.0
}

#[inline(always)]
fn square_body<V: Vector, P: Pixel>(
    tile: &Tile<P>,
    probes: &[&Probe],
    shape: Shape,
    side: usize,
    space: &mut EnergySpace,
    out: &mut [&mut [Lanes]],
) {
    match (probes, out) {
        ([a, b], [first, second]) => square_of::<V, P, 2>(tile, [a, b], shape, side, space, [first, second]),
        (probes, out) => {
            for (probe, out) in probes.iter().zip(out) {
                square_of::<V, P, 1>(tile, [probe], shape, side, space, [out]);
            }
        }
    }
}

#[inline(always)]
fn square_of<V: Vector, P: Pixel, const Q: usize>(
    tile: &Tile<P>,
    probes: [&Probe; Q],
    shape: Shape,
    side: usize,
    space: &mut EnergySpace,
    mut out: [&mut [Lanes]; Q],
) {
    let (width, columns) = (shape.width, shape.width - side + 1);
    space.rows.resize(space.rows.len().max((Q + 1) * width), Lanes::ZERO);
    let (tails, errors) = space.rows.split_at_mut(width);
    for slider in &mut space.sliders {
        slider.start(side, columns);
    }
    let mut done = 0;
    for y in 0..shape.height {
        let mut sliders = space.sliders.iter_mut();
        let sums: [&mut [Lanes]; Q] = std::array::from_fn(|_| sliders.next().map_or(&mut [][..], RowSlider::slot));
        match side {
            1 => short_sums::<V, P, Q, 1>(tile, probes, shape, y, sums),
            2 => short_sums::<V, P, Q, 2>(tile, probes, shape, y, sums),
            3 => short_sums::<V, P, Q, 3>(tile, probes, shape, y, sums),
            4 => short_sums::<V, P, Q, 4>(tile, probes, shape, y, sums),
            _ => {
                let mut rows = errors.chunks_exact_mut(width);
                let rows: [&mut [Lanes]; Q] = std::array::from_fn(|_| rows.next().unwrap_or_default());
                let mut rows = Rows(rows);
                errors_of_row::<V, P, Q>(tile, probes, shape, y, &mut rows);
                for (row, sums) in rows.0.iter().zip(sums) {
                    slide_row::<V>(row, side, tails, sums);
                }
            }
        }
        let complete = y + 1 >= side;
        for (slider, out) in space.sliders.iter_mut().zip(&mut out) {
            slider.advance::<V>(&mut out[done..]);
        }
        done += if complete { columns } else { 0 };
    }
}

#[inline(always)]
fn short_sums<V: Vector, P: Pixel, const Q: usize, const SIDE: usize>(
    tile: &Tile<P>,
    probes: [&Probe; Q],
    shape: Shape,
    y: usize,
    sums: [&mut [Lanes]; Q],
) {
    let mut sink = ShortSums([Roll::<V, SIDE>::start(); Q], sums);
    errors_of_row::<V, P, Q>(tile, probes, shape, y, &mut sink);
}

#[inline(always)]
fn masks_body<V: Vector, P: Pixel>(
    tile: &Tile<P>,
    probes: &[&Probe],
    shape: Shape,
    runs: &Runs,
    space: &mut EnergySpace,
    out: &mut [&mut [Lanes]],
) {
    let plane = shape.height * shape.width;
    space.tables.resize(space.tables.len().max(runs.levels() * plane), Lanes::ZERO);
    for (probe, out) in probes.iter().zip(out) {
        for (y, row) in space.tables[..plane].chunks_exact_mut(shape.width).enumerate() {
            errors_of_row::<V, P, 1>(tile, [probe], shape, y, &mut Rows([row]));
        }
        for level in 1..runs.levels() {
            let (lower, upper) = space.tables.split_at_mut(level * plane);
            let half = 1 << (level - 1);
            let lower = &lower[(level - 1) * plane..];
            for p in 0..plane - half {
                V::load(&lower[p]).add(V::load(&lower[p + half])).store(&mut upper[p]);
            }
        }
        for (k, energy) in out[..runs.count()].iter_mut().enumerate() {
            let mut sum = V::splat(0.0);
            for piece in runs.pieces(k) {
                sum = sum.add(V::load(&space.tables[piece.level as usize * plane + piece.at as usize]));
            }
            sum.store(energy);
        }
    }
}

/// Hands the squared errors of every pixel of row `y`, summed over channels, to `sink`.
#[inline(always)]
fn errors_of_row<V: Vector, P: Pixel, const Q: usize>(
    tile: &Tile<P>,
    probes: [&Probe; Q],
    shape: Shape,
    y: usize,
    sink: &mut impl Sink<V, Q>,
) {
    match (probes[0].expanded, shape.channels) {
        (true, 1) => errors_of::<V, P, Q, true, 1>(tile, probes, shape, y, sink),
        (true, 3) => errors_of::<V, P, Q, true, 3>(tile, probes, shape, y, sink),
        (true, _) => errors_of::<V, P, Q, true, 0>(tile, probes, shape, y, sink),
        (false, 1) => errors_of::<V, P, Q, false, 1>(tile, probes, shape, y, sink),
        (false, 3) => errors_of::<V, P, Q, false, 3>(tile, probes, shape, y, sink),
        (false, _) => errors_of::<V, P, Q, false, 0>(tile, probes, shape, y, sink),
    }
}

/// `CHANNELS` is the number of channels, or 0 where it is only known at run time.
#[inline(always)]
fn errors_of<V: Vector, P: Pixel, const Q: usize, const EXPANDED: bool, const CHANNELS: usize>(
    tile: &Tile<P>,
    probes: [&Probe; Q],
    shape: Shape,
    y: usize,
    sink: &mut impl Sink<V, Q>,
) {
    let plane = shape.height * shape.width;
    let row = |c: usize| c * plane + y * shape.width..c * plane + (y + 1) * shape.width;
    // Rows cut to one length, so that no access in the loop needs a check of its bounds.
    let pixels: [&[P::Lanes]; CHANNELS] = std::array::from_fn(|c| &tile.pixels[row(c)]);
    let values: [[&[f32]; CHANNELS]; Q] = probes.map(|probe| std::array::from_fn(|c| &probe.values[row(c)]));
    for x in 0..shape.width {
        let mut sums = Sums::<V, Q, EXPANDED>::start();
        for c in 0..CHANNELS {
            sums.add(P::centred(&pixels[c][x]), std::array::from_fn(|q| values[q][c][x]));
        }
        if CHANNELS == 0 {
            for p in (0..shape.channels).map(|c| c * plane + y * shape.width + x) {
                sums.add(P::centred(&tile.pixels[p]), std::array::from_fn(|q| probes[q].values[p]));
            }
        }
        sink.put(x, sums.errors());
    }
}

/// The errors of one pixel, summed over channels.
struct Sums<V, const Q: usize, const EXPANDED: bool> {
    /// The part that depends on the probe.
    cross: [V; Q],
    /// `a^2`, the part of the expanded form that does not.
    own: V,
}

impl<V: Vector, const Q: usize, const EXPANDED: bool> Sums<V, Q, EXPANDED> {
    #[inline(always)]
    fn start() -> Self {
        Self { cross: [V::splat(0.0); Q], own: V::splat(0.0) }
    }

    #[inline(always)]
    fn add(&mut self, a: V, values: [f32; Q]) {
        if EXPANDED {
            self.own = a.mul_add(a, self.own);
        }
        for q in 0..Q {
            let z = V::splat(values[q]);
            self.cross[q] = if EXPANDED {
                a.mul_add(z, self.cross[q])
            } else {
                let t = a.sub(z);
                t.mul_add(t, self.cross[q])
            };
        }
    }

    #[inline(always)]
    fn errors(mut self) -> [V; Q] {
        if EXPANDED {
            for q in 0..Q {
                self.cross[q] = self.cross[q].add(self.own);
            }
        }
        self.cross
    }
}
