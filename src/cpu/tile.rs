//! `Tile`: sixteen images transposed so that every pixel holds its sixteen values side by side.

use super::isa::{Isa, dispatched};
use super::simd::{Halves, LANES, Lanes, Vector, transpose_bytes};

/// A stored pixel.
pub trait Pixel: Copy + Send + Sync + 'static {
    /// The same pixel of sixteen images, in memory, less the centre of its range.
    type Lanes: Copy + Send + Sync;

    /// Zero in every lane.
    const ZERO: Self::Lanes;

    /// What pads rows of pixels.
    const BLANK: Self;

    /// The values as numbers, less the centre of their range.
    fn centred<V: Vector>(lanes: &Self::Lanes) -> V;

    /// Sixteen pixels side by side as numbers, less the centre of their range.
    fn centred_row<V: Vector>(pixels: &[Self; LANES]) -> V;

    /// Its value less the centre of the range.
    fn number(self) -> f64;

    /// Writes its value less the centre of the range to one lane.
    fn put(self, lanes: &mut Self::Lanes, lane: usize);

    /// Copies the leading pixels of sixteen images to `[pixel][lane]`, in blocks, and returns how many it copied.
    fn transpose_blocks(_isa: Isa, _images: &[&[Self]; LANES], _pixels: &mut [Self::Lanes]) -> usize {
        0
    }
}

/// Half the range of a byte. `u - 127.5` has eight significant bits, so that [`Halves`] hold it exactly.
const CENTRE: f32 = 127.5;

impl Pixel for u8 {
    type Lanes = Halves;
    const ZERO: Self::Lanes = Halves::ZERO;
    const BLANK: Self = 0;

    #[inline(always)]
    fn centred<V: Vector>(lanes: &Self::Lanes) -> V {
        V::load_halves(lanes)
    }

    #[inline(always)]
    fn centred_row<V: Vector>(pixels: &[Self; LANES]) -> V {
        V::load_bytes(pixels).sub(V::splat(CENTRE))
    }

    fn number(self) -> f64 {
        f64::from(self) - f64::from(CENTRE)
    }

    fn put(self, lanes: &mut Self::Lanes, lane: usize) {
        lanes.set(lane, f32::from(self) - CENTRE);
    }

    fn transpose_blocks(isa: Isa, images: &[&[Self]; LANES], pixels: &mut [Self::Lanes]) -> usize {
        transpose_byte_blocks(isa, images, pixels)
    }
}

dispatched! {
    fn transpose_byte_blocks(images: &[&[u8]; LANES], pixels: &mut [Halves]) -> usize = transpose_byte_blocks_body
}

#[inline(always)]
fn transpose_byte_blocks_body<V: Vector>(images: &[&[u8]; LANES], pixels: &mut [Halves]) -> usize {
    let blocks = pixels.len() / LANES;
    for (block, pixels) in pixels.chunks_exact_mut(LANES).enumerate() {
        let rows = std::array::from_fn(|i| &images[i].as_chunks::<LANES>().0[block]);
        let mut columns = [[0; LANES]; LANES];
        transpose_bytes(rows, &mut columns);
        for (pixel, bytes) in pixels.iter_mut().zip(&columns) {
            V::load_bytes(bytes).sub(V::splat(CENTRE)).store_halves(pixel);
        }
    }
    blocks * LANES
}

impl Pixel for f32 {
    type Lanes = Lanes;
    const ZERO: Self::Lanes = Lanes::ZERO;
    const BLANK: Self = 0.0;

    #[inline(always)]
    fn centred<V: Vector>(lanes: &Self::Lanes) -> V {
        V::load(lanes)
    }

    #[inline(always)]
    fn centred_row<V: Vector>(pixels: &[Self; LANES]) -> V {
        V::load(&Lanes(*pixels))
    }

    fn number(self) -> f64 {
        f64::from(self)
    }

    fn put(self, lanes: &mut Self::Lanes, lane: usize) {
        lanes.0[lane] = self;
    }
}

/// Sixteen images, `[channel][row][column][lane]`; lanes beyond `valid` hold zeros.
#[derive(Debug)]
pub struct Tile<P: Pixel> {
    /// The pixels, less the centre of their range.
    pub pixels: Vec<P::Lanes>,
    /// Their squares summed over channels, `[row][column][lane]`, once [`Tile::square`] was asked for them.
    pub squares: Vec<Lanes>,
    /// Those summed over windows too, `[window][lane]`, where energies are formed in whole numbers.
    pub window_squares: Vec<Lanes>,
    /// Number of lanes that hold an image.
    pub valid: usize,
    /// Channels of an image.
    pub channels: usize,
}

impl<P: Pixel> Tile<P> {
    /// An empty tile for images of `channels` times `plane` values.
    #[must_use]
    pub fn new(channels: usize, plane: usize) -> Self {
        Self {
            channels,
            pixels: vec![P::ZERO; channels * plane],
            squares: Vec::new(),
            window_squares: Vec::new(),
            valid: 0,
        }
    }

    /// Fills the tile with up to sixteen images laid one after the other.
    pub fn load(&mut self, isa: Isa, images: &[P]) {
        let image_len = self.pixels.len();
        self.valid = images.len() / image_len;
        let mut rows: [&[P]; LANES] = [&[]; LANES];
        rows.iter_mut().zip(images.chunks_exact(image_len)).for_each(|(row, image)| *row = image);
        transpose(isa, &rows[..self.valid], &mut self.pixels);
    }

    /// Fills in the squares, which the expanded form of the energies shares among all probes.
    pub fn square(&mut self, isa: Isa) {
        self.squares.resize(self.pixels.len() / self.channels, Lanes::ZERO);
        square(isa, self);
    }
}

/// Lays the pixels of up to sixteen rows of the same length side by side; zeros stand in for rows that are missing.
pub(super) fn transpose<P: Pixel>(isa: Isa, rows: &[&[P]], pixels: &mut [P::Lanes]) {
    let mut start = 0;
    if let Ok(all) = rows.try_into() {
        start = P::transpose_blocks(isa, all, pixels);
    } else {
        pixels.fill(P::ZERO);
    }
    for (lane, row) in rows.iter().enumerate() {
        for (pixel, &value) in pixels[start..].iter_mut().zip(&row[start..]) {
            value.put(pixel, lane);
        }
    }
}

dispatched! {
    fn square<P: Pixel>(tile: &mut Tile<P>) = square_body
}

#[inline(always)]
fn square_body<V: Vector, P: Pixel>(tile: &mut Tile<P>) {
    let Tile { pixels, squares, .. } = tile;
    let plane = squares.len();
    for (p, square) in squares.iter_mut().enumerate() {
        let mut sum = V::splat(0.0);
        for channel in pixels.chunks_exact(plane) {
            let a: V = P::centred(&channel[p]);
            sum = a.mul_add(a, sum);
        }
        sum.store(square);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Portable;

    fn lanes<P: Pixel>(pixel: &P::Lanes) -> [f32; LANES] {
        let mut out = Lanes::ZERO;
        P::centred::<Portable<false>>(pixel).store(&mut out);
        out.0
    }

    #[test]
    fn lanes_hold_images_and_the_rest_is_zero() {
        // 70 pixels: four blocks and a rest.
        let images: Vec<u8> = (0..16 * 70_u32).map(|i| (i * 37 % 251) as u8).collect();
        for isa in Isa::available() {
            let mut tile = Tile::new(1, 70);
            for valid in [16, 3] {
                tile.load(isa, &images[..valid * 70]);
                tile.square(isa);
                assert_eq!(tile.valid, valid);
                for (p, pixel) in tile.pixels.iter().enumerate() {
                    let value = |lane: usize| f32::from(images[lane * 70 + p]) - 127.5;
                    let expected = std::array::from_fn(|lane| if lane < valid { value(lane) } else { 0.0 });
                    assert_eq!(lanes::<u8>(pixel), expected);
                    assert_eq!(tile.squares[p].0, expected.map(|v| v * v));
                }
            }
        }
    }

    #[test]
    fn float_tiles_load_too() {
        let images: Vec<f32> = (0..5_u8).map(f32::from).collect();
        let mut tile = Tile::new(1, 1);
        tile.load(Isa::best().unwrap(), &images);
        assert_eq!(tile.pixels[0].0[..6], [0.0, 1.0, 2.0, 3.0, 4.0, 0.0]);
    }
}
