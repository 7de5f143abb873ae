//! Sums over square windows in whole numbers.
//!
//! Values are rounded to multiples of a quantum, the smallest power of two of which the largest window sum has less than
//! 2^31. Sums of whole numbers are exact, so a window may slide: what enters is added, what leaves is taken away, two
//! additions a direction whatever the side. With floats that would leave an error behind for good. The rounding of the
//! values is no loss: it is below what a float of the size of a window's sum can tell apart (docs/accuracy.md).

use super::errors::{Errors, PRODUCTS, SQUARES, Shape};
use super::isa::{Isa, dispatched};
use super::parts::parts_mut;
use super::simd::{Lanes, Vector, Whole, WholeLanes};
use super::slide::LONGEST_SHORT;
use super::tile::{Pixel, Tile};
use crate::windows::{Kind, Windows};

/// Windows of more values than this are summed as floats, as the quantum would be too coarse for each of them.
const MOST_VALUES: usize = 1 << 15;

/// The side of windows whose sums are worth whole numbers.
#[must_use]
pub fn side(windows: &Windows, channels: usize) -> Option<usize> {
    match windows.kind() {
        Kind::Square { side } if *side > LONGEST_SHORT && side * side * channels <= MOST_VALUES => Some(*side),
        Kind::Square { .. } | Kind::Masks(_) | Kind::Full => None,
    }
}

/// The quantum for window sums of magnitude up to `bound`.
#[must_use]
pub fn quantum(bound: f64) -> f32 {
    // A part in a thousand is left for the rounding of values; far below the smallest quantum no energy matters.
    const ROOM: f64 = 2_147_483_648.0 / 1.001;
    const SMALLEST: i32 = -100;
    2.0_f64.powi(((bound / ROOM).log2().ceil() as i32).max(SMALLEST)) as f32
}

/// Window sums of tiles, as rows of values arrive from the top.
#[derive(Debug, Default)]
pub struct WholeSums {
    /// The last `side` rows of values, `[row][column][tile]`; the next one takes the place of the oldest.
    ring: Vec<WholeLanes>,
    /// Sums down the last `side` rows, `[column][tile]`, after a column of zeros.
    down: Vec<WholeLanes>,
    side: usize,
    width: usize,
    /// Rows taken so far.
    seen: usize,
    /// Where the next row belongs in the ring.
    slot: usize,
}

impl WholeSums {
    /// Before the first row of `width` values of each of `tiles`, for windows of `side` rows and columns.
    pub fn start(&mut self, side: usize, width: usize, tiles: usize) {
        (self.side, self.width, self.seen, self.slot) = (side, width, 0, 0);
        self.ring.resize(self.ring.len().max(side * width * tiles), WholeLanes::ZERO);
        self.down.resize(self.down.len().max((width + 1) * tiles), WholeLanes::ZERO);
        self.down[..tiles].fill(WholeLanes::ZERO);
    }

    /// Takes the next row of pixels of one or two tiles and of the values of a probe. If a row of windows ends there, writes
    /// to `out` `[tile][window]` their energies: `quantum` times the sums of products, plus the tile's sums of squares.
    pub fn energies<P: Pixel>(
        &mut self,
        isa: Isa,
        windows: &Windows,
        tiles: &[Tile<P>],
        (values, quantum): (&[f32], f32),
        out: &mut [Lanes],
    ) {
        energies(isa, self, Shape::of(windows, &tiles[0]), tiles, values, quantum, out);
        self.move_on();
    }

    /// Sums the squares of a tile over windows; no pixel lies further than `reach` from the centre of its range.
    pub fn square<P: Pixel>(&mut self, isa: Isa, windows: &Windows, side: usize, reach: f64, tile: &mut Tile<P>) {
        let quantum = quantum((side * side * tile.channels) as f64 * reach.powi(2));
        tile.window_squares.resize(windows.count(), Lanes::ZERO);
        self.start(side, windows.width(), 1);
        for _ in 0..windows.height() {
            square(isa, self, Shape::of(windows, tile), quantum, tile);
            self.move_on();
        }
    }

    /// Counts a row.
    fn move_on(&mut self) {
        self.seen += 1;
        self.slot = if self.slot + 1 == self.side { 0 } else { self.slot + 1 };
    }

    /// The row of windows that ends at the row of pixels at hand, if any does.
    fn row(&self) -> Option<usize> {
        (self.seen + 1).checked_sub(self.side)
    }

    /// Adds the next row of values to the sums down, and takes away the one that leaves.
    #[inline(always)]
    fn take<V: Vector, const T: usize>(&mut self, values: &impl Values<T>) {
        if self.seen == 0 {
            self.enter::<V, T, false, false>(values);
        } else if self.seen < self.side {
            self.enter::<V, T, true, false>(values);
        } else {
            self.enter::<V, T, true, true>(values);
        }
    }

    /// Adds a row to the sums down, if there are `SOME` already; `FULL` says that another row leaves them.
    #[inline(always)]
    fn enter<V: Vector, const T: usize, const SOME: bool, const FULL: bool>(&mut self, values: &impl Values<T>) {
        let ring = &mut self.ring.as_chunks_mut::<T>().0[self.slot * self.width..][..self.width];
        let down = &mut self.down.as_chunks_mut::<T>().0[1..][..ring.len()];
        let values = values.cut(ring.len());
        for x in 0..ring.len() {
            let row = values.at::<V>(x);
            for t in 0..T {
                let value = row[t].round();
                let mut sum = value;
                if SOME {
                    sum = sum.add(V::Whole::load(&down[x][t]));
                }
                if FULL {
                    sum = sum.sub(V::Whole::load(&ring[x][t]));
                }
                value.store(&mut ring[x][t]);
                sum.store(&mut down[x][t]);
            }
        }
    }

    /// Writes the sums over the windows of a row: `quantum` times them, plus `base` if there is any.
    #[inline(always)]
    fn windows<V: Vector, const T: usize>(&self, quantum: f32, base: Option<[&[Lanes]; T]>, out: [&mut [Lanes]; T]) {
        let columns = self.width + 1 - self.side;
        let (quantum, down) = (V::splat(quantum), self.down.as_chunks::<T>().0);
        let (leaving, entering) = (&down[..columns], &down[self.side..][..columns]);
        for (t, out) in out.into_iter().enumerate() {
            let mut run = V::Whole::load(&WholeLanes::ZERO);
            for down in &down[1..self.side] {
                run = run.add(V::Whole::load(&down[t]));
            }
            let out = &mut out[..columns];
            let base = base.map(|base| &base[t][..columns]);
            for x in 0..columns {
                run = run.add(V::Whole::load(&entering[x][t]).sub(V::Whole::load(&leaving[x][t])));
                let sum = V::of_whole(run);
                match base {
                    None => sum.mul(quantum).store(&mut out[x]),
                    Some(base) => sum.mul_add(quantum, V::load(&base[x])).store(&mut out[x]),
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
struct Products<'a, P: Pixel, const CHANNELS: usize, const T: usize>([Errors<'a, P, PRODUCTS, CHANNELS>; T]);

impl<P: Pixel, const CHANNELS: usize, const T: usize> Values<T> for Products<'_, P, CHANNELS, T> {
    #[inline(always)]
    fn cut(&self, width: usize) -> Self {
        Self(std::array::from_fn(|t| self.0[t].part(0, width)))
    }

    #[inline(always)]
    fn at<V: Vector>(&self, x: usize) -> [V; T] {
        let mut values = [V::splat(0.0); T];
        for t in 0..T {
            values[t] = self.0[t].at(x);
        }
        values
    }
}

/// The squares, in units of a quantum.
struct Squares<'a, P: Pixel, const CHANNELS: usize> {
    errors: Errors<'a, P, SQUARES, CHANNELS>,
    scale: f32,
}

impl<P: Pixel, const CHANNELS: usize> Values<1> for Squares<'_, P, CHANNELS> {
    #[inline(always)]
    fn cut(&self, width: usize) -> Self {
        Self { errors: self.errors.part(0, width), ..*self }
    }

    #[inline(always)]
    fn at<V: Vector>(&self, x: usize) -> [V; 1] {
        [self.errors.at::<V>(x).mul(V::splat(self.scale))]
    }
}

dispatched! {
    fn energies<P: Pixel>(
        sums: &mut WholeSums,
        shape: Shape,
        tiles: &[Tile<P>],
        values: &[f32],
        quantum: f32,
        out: &mut [Lanes],
    ) = energies_body
}

dispatched! {
    fn square<P: Pixel>(sums: &mut WholeSums, shape: Shape, quantum: f32, tile: &mut Tile<P>) = square_body
}

#[inline(always)]
fn energies_body<V: Vector, P: Pixel>(
    sums: &mut WholeSums,
    shape: Shape,
    tiles: &[Tile<P>],
    values: &[f32],
    quantum: f32,
    out: &mut [Lanes],
) {
    let (twos, ones) = tiles.as_chunks::<2>();
    match (twos, ones, shape.channels) {
        ([two], [], 1) => energies_of::<V, P, 1, 2>(sums, shape, two, values, quantum, out),
        ([two], [], 3) => energies_of::<V, P, 3, 2>(sums, shape, two, values, quantum, out),
        ([two], [], _) => energies_of::<V, P, 0, 2>(sums, shape, two, values, quantum, out),
        ([], [one], 1) => energies_of::<V, P, 1, 1>(sums, shape, std::array::from_ref(one), values, quantum, out),
        ([], [one], 3) => energies_of::<V, P, 3, 1>(sums, shape, std::array::from_ref(one), values, quantum, out),
        ([], [one], _) => energies_of::<V, P, 0, 1>(sums, shape, std::array::from_ref(one), values, quantum, out),
        _ => unreachable!("groups have one or two tiles"),
    }
}

#[inline(always)]
fn energies_of<V: Vector, P: Pixel, const CHANNELS: usize, const T: usize>(
    sums: &mut WholeSums,
    shape: Shape,
    tiles: &[Tile<P>; T],
    values: &[f32],
    quantum: f32,
    out: &mut [Lanes],
) {
    sums.take::<V, T>(&Products::<P, CHANNELS, T>(std::array::from_fn(|t| {
        Errors::of_row(&tiles[t], values, shape, sums.seen)
    })));
    let Some(row) = sums.row() else { return };
    let columns = shape.width + 1 - sums.side;
    let squares = std::array::from_fn(|t| &tiles[t].window_squares[row * columns..][..columns]);
    let mut rows = parts_mut(out, columns);
    sums.windows::<V, T>(quantum, Some(squares), std::array::from_fn(|_| rows.next().unwrap_or_default()));
}

#[inline(always)]
fn square_body<V: Vector, P: Pixel>(sums: &mut WholeSums, shape: Shape, quantum: f32, tile: &mut Tile<P>) {
    let (scale, y) = (1.0 / quantum, sums.seen);
    match shape.channels {
        1 => sums.take::<V, 1>(&Squares { errors: Errors::<P, SQUARES, 1>::of_row(tile, &[], shape, y), scale }),
        3 => sums.take::<V, 1>(&Squares { errors: Errors::<P, SQUARES, 3>::of_row(tile, &[], shape, y), scale }),
        _ => sums.take::<V, 1>(&Squares { errors: Errors::<P, SQUARES, 0>::of_row(tile, &[], shape, y), scale }),
    }
    let Some(row) = sums.row() else { return };
    let columns = shape.width + 1 - sums.side;
    sums.windows::<V, 1>(quantum, None, [&mut tile.window_squares[row * columns..][..columns]]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::Bank;
    use crate::cpu::probe::Probe;
    use crate::cpu::simd::LANES;
    use ndarray::{Array3, Array4};
    use proptest::prelude::*;

    /// Energies of all windows, `[tile][row][column]`, by kernel and exactly, and the largest sum of magnitudes.
    fn both(isa: Isa, images: &Array4<u8>, z: &Array3<f64>, side: usize, sigma: f64) -> (Vec<Lanes>, Vec<f64>, f64) {
        let (count, channels, height, width) = images.dim();
        let bank = Bank::from_u8(images.view()).unwrap();
        let windows = Windows::square(height, width, side).unwrap();
        let probe = Probe::new(&bank, &windows, z.view(), sigma, 0, false);
        let mut sums = WholeSums::default();
        let pixels = images.as_slice().unwrap();
        let mut tiles: Vec<Tile<u8>> = Vec::new();
        for images in pixels.chunks(LANES * channels * height * width) {
            let mut tile = Tile::new(channels, height * width);
            tile.load(isa, images);
            sums.square(isa, &windows, side, 127.5, &mut tile);
            tiles.push(tile);
        }
        let (rows, columns) = windows.grid();
        let mut found = vec![Lanes::ZERO; tiles.len() * rows * columns];
        let mut out = vec![Lanes::ZERO; tiles.len() * columns];
        sums.start(side, width, tiles.len());
        for y in 0..height {
            sums.energies(isa, &windows, &tiles, (&probe.values, probe.quantum.unwrap()), &mut out);
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
            channels in 1_usize..=4, height in 6_usize..12, width in 6_usize..12, count in 1_usize..=2 * LANES,
            side in 5_usize..=6, reach in 1.0_f64..300.0, flat: bool,
        ) {
            let value = |i: usize| if flat { 255 } else { (i * 7919 % 256) as u8 };
            let shape = (count, channels, height, width);
            let images = Array4::from_shape_vec(shape, (0..count * channels * height * width).map(value).collect());
            let images = images.unwrap();
            let z = Array3::from_shape_fn((channels, height, width), |(c, y, x)| {
                reach * if flat { 1.0 } else { ((c * 31 + y * 17 + x * 5) % 21) as f64 / 10.0 - 1.0 }
            });
            prop_assume!(side < height.max(width));
            for isa in Isa::available() {
                let (found, exact, size) = both(isa, &images, &z, side, 1.0);
                let windows = exact.len() / count;
                for (i, exact) in exact.iter().enumerate() {
                    let (n, k) = (i / windows, i % windows);
                    let energy = f64::from(found[n / LANES * windows + k].0[n % LANES]);
                    // Roundings of products and of the result, each below 2^-24 of the window's sum of magnitudes.
                    prop_assert!((energy - exact).abs() < 1.5e-7 * size, "{} against {}, of {}", energy, exact, size);
                }
            }
        }
    }

    #[test]
    fn quanta_leave_room_for_the_bound() {
        for bound in [1e-3, 1.0, 3.5e6, 2.0_f64.powi(31), 1e18] {
            let units = bound / f64::from(quantum(bound));
            assert!((1.07e9..2.1455e9).contains(&units), "{bound}: {units}");
        }
        assert_eq!(quantum(0.0), 2.0_f32.powi(-100));
    }
}
