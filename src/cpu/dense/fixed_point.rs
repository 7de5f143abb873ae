//! Sums over square windows in fixed point.
//!
//! Values are rounded to multiples of a scale, the smallest power of two of which the largest window sum has less than
//! 2^31. Sums of integers are exact, so windows may slide: what enters is added and what leaves is subtracted, two
//! additions per direction whatever the side. Sliding sums of floats would keep the rounding error of every value that
//! ever entered. Rounding the values loses nothing: it is finer than the spacing of floats of the size of a window's
//! sum (docs/accuracy.md).

use super::residuals::{Beyond, Grid, PRODUCTS, Residuals, SQUARES};
use crate::cpu::chunks::exact_chunks_mut;
use crate::cpu::probe::fixed_point_scale;
use crate::cpu::tile::{Pixel, Tile};
use crate::simd::{F32x16, I32x16, Isa, Kernel, Vector, VectorI32};

/// Window sums of tiles, as rows of values arrive from the top.
#[derive(Debug, Default)]
pub(crate) struct FixedPointSums {
    /// The last `side` rows of values, `[row][column][tile]`; the next row overwrites the oldest.
    ring: Vec<I32x16>,
    /// Sums down the last `side` rows, `[column][tile]`, after a column of zeros; with the columns beyond the border.
    down: Vec<I32x16>,
    grid: Grid,
    /// Rows pushed so far.
    seen: usize,
    /// Where the next row belongs in the ring.
    slot: usize,
}

impl FixedPointSums {
    /// Starts over with the windows of so many tiles.
    pub(crate) fn start(&mut self, grid: Grid, tiles: usize) {
        (self.grid, self.seen, self.slot) = (grid, 0, 0);
        let (ring, down) = (grid.side * grid.shape.width * tiles, (grid.padded_width() + 1) * tiles);
        self.ring.resize(self.ring.len().max(ring), I32x16::ZERO);
        self.down.resize(self.down.len().max(down), I32x16::ZERO);
        self.down[..down].fill(I32x16::ZERO);
    }

    /// Takes the next row of pixels of one or two tiles and of the values of a probe. If a row of windows ends there,
    /// writes to `out` `[tile][window]` their energies: `scale` times the sums of products, plus the tile's sums of
    /// squares.
    pub(crate) fn energies<P: Pixel>(
        &mut self,
        isa: Isa,
        tiles: &[Tile<P>],
        (values, scale): (&[f32], f32),
        out: &mut [F32x16],
    ) {
        isa.run(EnergyRow { sums: &mut *self, tiles, values, scale, out });
        self.advance();
    }

    /// Sums the squares of a tile over windows; `max_abs` is the largest distance of a pixel from the centre of its
    /// range. Ends early, in the middle, once the call `is_stopped`.
    pub(crate) fn square<P: Pixel>(
        &mut self,
        isa: Isa,
        grid: Grid,
        max_abs: f64,
        tile: &mut Tile<P>,
        is_stopped: impl Fn() -> bool,
    ) {
        let scale = fixed_point_scale((grid.side * grid.side * tile.channels) as f64 * max_abs.powi(2));
        tile.window_squares.resize(grid.rows() * grid.columns(), F32x16::ZERO);
        self.start(grid, 1);
        for _ in (0..grid.padded_height()).take_while(|_| !is_stopped()) {
            isa.run(SquareRow { sums: &mut *self, scale, tile: &mut *tile });
            self.advance();
        }
    }

    /// Advances to the next row.
    fn advance(&mut self) {
        self.seen += 1;
        self.slot = if self.slot + 1 == self.grid.side { 0 } else { self.slot + 1 };
    }

    /// The row of windows that ends at the current row of pixels, if any does.
    fn row(&self) -> Option<usize> {
        (self.seen + 1).checked_sub(self.grid.side)
    }

    /// Adds the next row of values to the sums down, and subtracts the one that leaves.
    #[inline(always)]
    fn push_row<V: Vector, const T: usize>(&mut self, values: &impl Values<T>) {
        if self.seen == 0 {
            self.push_row_of::<V, T, false, false>(values);
        } else if self.seen < self.grid.side {
            self.push_row_of::<V, T, true, false>(values);
        } else {
            self.push_row_of::<V, T, true, true>(values);
        }
    }

    /// Adds a row to the sums down, if there are `SOME` already; `FULL` says that another row leaves them.
    #[inline(always)]
    fn push_row_of<V: Vector, const T: usize, const SOME: bool, const FULL: bool>(&mut self, values: &impl Values<T>) {
        let (width, reach) = (self.grid.shape.width, self.grid.reach());
        let ring = &mut self.ring.as_chunks_mut::<T>().0[self.slot * width..][..width];
        let all = self.down.as_chunks_mut::<T>().0;
        let down = &mut all[1 + reach..][..ring.len()];
        let values = values.cut(ring.len());
        for x in 0..ring.len() {
            let row = values.at::<V>(x);
            for t in 0..T {
                let value = row[t].round();
                let mut sum = value;
                if SOME {
                    sum = sum.add(V::I32::load(&down[x][t]));
                }
                if FULL {
                    sum = sum.sub(V::I32::load(&ring[x][t]));
                }
                value.store(&mut ring[x][t]);
                sum.store(&mut down[x][t]);
            }
        }
        if self.grid.beyond == Beyond::Opposite {
            all.copy_within(1 + width..1 + width + reach, 1);
            all.copy_within(1 + reach..=2 * reach, 1 + reach + width);
        }
    }

    /// Writes the sums over the windows of a row: `scale` times them, plus `base` if there is any.
    #[inline(always)]
    fn windows<V: Vector, const T: usize>(&self, scale: f32, base: Option<[&[F32x16]; T]>, out: [&mut [F32x16]; T]) {
        let (columns, side) = (self.grid.columns(), self.grid.side);
        let (scale, down) = (V::splat(scale), self.down.as_chunks::<T>().0);
        let (leaving, entering) = (&down[..columns], &down[side..][..columns]);
        for (t, out) in out.into_iter().enumerate() {
            let mut run = V::I32::load(&I32x16::ZERO);
            for down in &down[1..side] {
                run = run.add(V::I32::load(&down[t]));
            }
            let out = &mut out[..columns];
            let base = base.map(|base| &base[t][..columns]);
            for x in 0..columns {
                run = run.add(V::I32::load(&entering[x][t]).sub(V::I32::load(&leaving[x][t])));
                let sum = V::from_i32(run);
                match base {
                    None => sum.mul(scale).store(&mut out[x]),
                    Some(base) => sum.mul_add(scale, V::load(&base[x])).store(&mut out[x]),
                }
            }
        }
    }
}

/// The values of one row of one or two tiles.
trait Values<const T: usize>: Sized {
    /// The first `width` columns.
    fn cut(&self, width: usize) -> Self;

    /// The values of every tile at column x.
    fn at<V: Vector>(&self, x: usize) -> [V; T];
}

/// The products with a probe.
struct Products<'a, P: Pixel, const CHANNELS: usize, const T: usize>([Residuals<'a, P, PRODUCTS, CHANNELS>; T]);

impl<P: Pixel, const CHANNELS: usize, const T: usize> Values<T> for Products<'_, P, CHANNELS, T> {
    #[inline(always)]
    fn cut(&self, width: usize) -> Self {
        Self(std::array::from_fn(|t| self.0[t].part(0, width)))
    }

    #[inline(always)]
    fn at<V: Vector>(&self, x: usize) -> [V; T] {
        Residuals::of_tiles(&self.0, x)
    }
}

/// No values, of a row beyond the border.
struct Blank;

impl<const T: usize> Values<T> for Blank {
    fn cut(&self, _width: usize) -> Self {
        Self
    }

    #[inline(always)]
    fn at<V: Vector>(&self, _x: usize) -> [V; T] {
        [V::splat(0.0); T]
    }
}

/// The squares, in units of the scale.
struct Squares<'a, P: Pixel, const CHANNELS: usize> {
    residuals: Residuals<'a, P, SQUARES, CHANNELS>,
    units_per_one: f32,
}

impl<P: Pixel, const CHANNELS: usize> Values<1> for Squares<'_, P, CHANNELS> {
    #[inline(always)]
    fn cut(&self, width: usize) -> Self {
        Self { residuals: self.residuals.part(0, width), ..*self }
    }

    #[inline(always)]
    fn at<V: Vector>(&self, x: usize) -> [V; 1] {
        [self.residuals.at::<V>(x).mul(V::splat(self.units_per_one))]
    }
}

struct EnergyRow<'a, P: Pixel> {
    sums: &'a mut FixedPointSums,
    tiles: &'a [Tile<P>],
    values: &'a [f32],
    scale: f32,
    out: &'a mut [F32x16],
}

impl<P: Pixel> Kernel for EnergyRow<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { sums, tiles, values, scale, out } = self;
        let (pairs, singles) = tiles.as_chunks::<2>();
        match (pairs, singles, sums.grid.shape.channels) {
            ([pair], [], 1) => energies_of::<V, P, 1, 2>(sums, pair, values, scale, out),
            ([pair], [], 3) => energies_of::<V, P, 3, 2>(sums, pair, values, scale, out),
            ([pair], [], _) => energies_of::<V, P, 0, 2>(sums, pair, values, scale, out),
            ([], [tile], 1) => energies_of::<V, P, 1, 1>(sums, std::array::from_ref(tile), values, scale, out),
            ([], [tile], 3) => energies_of::<V, P, 3, 1>(sums, std::array::from_ref(tile), values, scale, out),
            ([], [tile], _) => energies_of::<V, P, 0, 1>(sums, std::array::from_ref(tile), values, scale, out),
            _ => unreachable!("groups have one or two tiles"),
        }
    }
}

struct SquareRow<'a, P: Pixel> {
    sums: &'a mut FixedPointSums,
    scale: f32,
    tile: &'a mut Tile<P>,
}

impl<P: Pixel> Kernel for SquareRow<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { sums, scale, tile } = self;
        let (units_per_one, framed) = (1.0 / scale, sums.grid.framed());
        match (sums.grid.row(sums.seen), sums.grid.shape.channels) {
            (None, _) => sums.push_row::<V, 1>(&Blank),
            (Some(y), 1) => sums.push_row::<V, 1>(&Squares {
                residuals: Residuals::<P, SQUARES, 1>::of_framed_row(tile, &[], framed, y),
                units_per_one,
            }),
            (Some(y), 3) => sums.push_row::<V, 1>(&Squares {
                residuals: Residuals::<P, SQUARES, 3>::of_framed_row(tile, &[], framed, y),
                units_per_one,
            }),
            (Some(y), _) => sums.push_row::<V, 1>(&Squares {
                residuals: Residuals::<P, SQUARES, 0>::of_framed_row(tile, &[], framed, y),
                units_per_one,
            }),
        }
        let Some(row) = sums.row() else { return };
        let columns = sums.grid.columns();
        sums.windows::<V, 1>(scale, None, [&mut tile.window_squares[row * columns..][..columns]]);
    }
}

#[inline(always)]
fn energies_of<V: Vector, P: Pixel, const CHANNELS: usize, const T: usize>(
    sums: &mut FixedPointSums,
    tiles: &[Tile<P>; T],
    values: &[f32],
    scale: f32,
    out: &mut [F32x16],
) {
    let framed = sums.grid.framed();
    match sums.grid.row(sums.seen) {
        None => sums.push_row::<V, T>(&Blank),
        Some(y) => sums.push_row::<V, T>(&Products::<P, CHANNELS, T>(std::array::from_fn(|t| {
            Residuals::of_framed_row(&tiles[t], values, framed, y)
        }))),
    }
    let Some(row) = sums.row() else { return };
    let columns = sums.grid.columns();
    let first = sums.grid.first_of_row(row);
    let squares = std::array::from_fn(|t| &tiles[t].window_squares[first..][..columns]);
    let mut rows = exact_chunks_mut(out, columns);
    sums.windows::<V, T>(scale, Some(squares), std::array::from_fn(|_| rows.next().unwrap_or_default()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use crate::components::Components;
    use crate::cpu::images::Images;
    use crate::cpu::probe::Probe;
    use crate::regime::MAX_SHORT_SIDE;
    use crate::simd::LANES;
    use ndarray::{Array3, Array4};
    use proptest::prelude::*;

    /// Energies of all windows, `[tile][row][column]`, by kernel and exactly, and the largest sum of magnitudes.
    fn both(isa: Isa, images: &Array4<u8>, z: &Array3<f64>, side: usize, sigma: f64) -> (Vec<F32x16>, Vec<f64>, f64) {
        let (count, channels, height, width) = images.dim();
        let bank = Bank::from_u8(images.view()).unwrap();
        let components = Components::square(height, width, side).unwrap();
        let probe = Probe::new(&bank, &components, z.view(), sigma, 0, false);
        let mut sums = FixedPointSums::default();
        let pixels = images.as_slice().unwrap();
        let mut tiles: Vec<Tile<u8>> = Vec::new();
        for images in pixels.chunks(LANES * channels * height * width) {
            let mut tile = Tile::new(channels, height * width);
            tile.load(isa, &Images::side_by_side(images, channels * height * width), 127.5);
            sums.square(isa, Grid::of(&components, side, &tile), 127.5, &mut tile, || false);
            tiles.push(tile);
        }
        let (rows, columns) = components.grid();
        let mut found = vec![F32x16::ZERO; tiles.len() * rows * columns];
        let mut out = vec![F32x16::ZERO; tiles.len() * columns];
        sums.start(Grid::of(&components, side, &tiles[0]), tiles.len());
        for y in 0..height {
            sums.energies(isa, &tiles, (&probe.values, probe.fixed_point_scale.unwrap()), &mut out);
            if let Some(row) = (y + 1).checked_sub(side) {
                for (t, out) in out.chunks_exact(columns).enumerate() {
                    found[(t * rows + row) * columns..][..columns].copy_from_slice(out);
                }
            }
        }
        let (mut exact, mut size) = (Vec::new(), 0.0_f64);
        for n in 0..count {
            for (y, x) in ndarray::indices((rows, columns)) {
                let (mut energy, mut magnitude) = (0.0, 0.0);
                for (c, i, j) in ndarray::indices((channels, side, side)) {
                    let (a, z) = (f64::from(images[[n, c, y + i, x + j]]) - 127.5, 127.5 * z[[c, y + i, x + j]]);
                    energy += a * a - 2.0 * a * z;
                    magnitude += a * a + (2.0 * a * z).abs();
                }
                exact.push(energy);
                size = size.max(magnitude);
            }
        }
        (found, exact, size)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn sums_are_those_of_the_windows(
            channels in 1_usize..=4, height in MAX_SHORT_SIDE + 2..12, width in MAX_SHORT_SIDE + 2..12, count in 1_usize..=2 * LANES,
            side in MAX_SHORT_SIDE + 1..=MAX_SHORT_SIDE + 2, max_abs in 1.0_f64..300.0, flat: bool,
        ) {
            let value = |i: usize| if flat { 255 } else { (i * 7919 % 256) as u8 };
            let shape = (count, channels, height, width);
            let images = Array4::from_shape_vec(shape, (0..count * channels * height * width).map(value).collect());
            let images = images.unwrap();
            let z = Array3::from_shape_fn((channels, height, width), |(c, y, x)| {
                max_abs * if flat { 1.0 } else { ((c * 31 + y * 17 + x * 5) % 21) as f64 / 10.0 - 1.0 }
            });
            prop_assume!(side < height.max(width));
            for isa in Isa::available() {
                let (found, exact, size) = both(isa, &images, &z, side, 1.0);
                let windows = exact.len() / count;
                for (i, exact) in exact.iter().enumerate() {
                    let (n, k) = (i / windows, i % windows);
                    let energy = f64::from(found[n / LANES * windows + k].0[n % LANES]);
                    // Three float roundings, of the value, the product and the result, and half a unit per product and
                    // per square, each at most 2^-31 of the bound.
                    let units = (side * side * channels) as f64 * 2.0_f64.powi(-30);
                    let bound = (3.0 * 2.0_f64.powi(-24) + units) * size;
                    prop_assert!((energy - exact).abs() < bound, "{} against {}, of {}", energy, exact, size);
                }
            }
        }
    }
}
