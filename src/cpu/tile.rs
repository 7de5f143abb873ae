//! `Tile`: sixteen images transposed so that every pixel holds its sixteen values side by side.

use super::simd::{LANES, Lanes, Vector};

/// A stored pixel.
pub trait Pixel: Copy + Send + Sync + 'static {
    /// The same pixel of sixteen images, in memory.
    type Lanes: Copy + Send + Sync;

    /// Zero in every lane.
    const ZERO: Self::Lanes;

    /// The stored values as numbers, less the centre of their range.
    fn centred<V: Vector>(lanes: &Self::Lanes) -> V;

    /// Its value less the centre of the range.
    fn number(self) -> f64;

    /// The value of one lane.
    fn lane(lanes: &mut Self::Lanes, lane: usize) -> &mut Self;

    /// Copies the leading pixels of sixteen images to `[pixel][lane]`, in blocks, and returns how many it copied.
    fn transpose_blocks(_images: &[&[Self]; LANES], _pixels: &mut [Self::Lanes]) -> usize {
        0
    }
}

impl Pixel for u8 {
    type Lanes = [u8; LANES];
    const ZERO: Self::Lanes = [0; LANES];

    #[inline(always)]
    fn centred<V: Vector>(lanes: &Self::Lanes) -> V {
        V::load_bytes(lanes).sub(V::splat(127.5))
    }

    fn number(self) -> f64 {
        f64::from(self) - 127.5
    }

    #[inline(always)]
    fn lane(lanes: &mut Self::Lanes, lane: usize) -> &mut Self {
        &mut lanes[lane]
    }

    #[cfg(target_arch = "x86_64")]
    fn transpose_blocks(images: &[&[Self]; LANES], pixels: &mut [Self::Lanes]) -> usize {
        let (blocks, _) = images[0].as_chunks::<LANES>();
        for (block, columns) in (0..blocks.len()).zip(pixels.chunks_exact_mut(LANES)) {
            let rows = images.map(|image| &image.as_chunks::<LANES>().0[block]);
            super::simd::transpose_bytes(rows, columns);
        }
        blocks.len() * LANES
    }
}

impl Pixel for f32 {
    type Lanes = Lanes;
    const ZERO: Self::Lanes = Lanes::ZERO;

    #[inline(always)]
    fn centred<V: Vector>(lanes: &Self::Lanes) -> V {
        V::load(lanes)
    }

    fn number(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn lane(lanes: &mut Self::Lanes, lane: usize) -> &mut Self {
        &mut lanes.0[lane]
    }
}

/// Sixteen images, `[channel][row][column][lane]`; lanes beyond `valid` hold zeros.
#[derive(Debug)]
pub struct Tile<P: Pixel> {
    /// The pixels.
    pub pixels: Vec<P::Lanes>,
    /// Number of lanes that hold an image.
    pub valid: usize,
}

impl<P: Pixel> Tile<P> {
    /// An empty tile for images of `image_len` values.
    #[must_use]
    pub fn new(image_len: usize) -> Self {
        Self { pixels: vec![P::ZERO; image_len], valid: 0 }
    }

    /// Fills the tile with up to sixteen images laid one after the other.
    pub fn load(&mut self, images: &[P]) {
        let image_len = self.pixels.len();
        self.valid = images.len() / image_len;
        let mut start = 0;
        if self.valid == LANES {
            let lanes = std::array::from_fn(|lane| &images[lane * image_len..(lane + 1) * image_len]);
            start = P::transpose_blocks(&lanes, &mut self.pixels);
        } else {
            self.pixels.fill(P::ZERO);
        }
        for (lane, image) in images.chunks_exact(image_len).enumerate() {
            for (pixel, &value) in self.pixels[start..].iter_mut().zip(&image[start..]) {
                *P::lane(pixel, lane) = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_hold_images_and_the_rest_is_zero() {
        // 70 pixels: four blocks and a rest.
        let images: Vec<u8> = (0..16 * 70_u32).map(|i| (i * 37 % 251) as u8).collect();
        let mut tile = Tile::new(70);
        for valid in [16, 3] {
            tile.load(&images[..valid * 70]);
            assert_eq!(tile.valid, valid);
            for (p, lanes) in tile.pixels.iter().enumerate() {
                let expected = std::array::from_fn(|lane| if lane < valid { images[lane * 70 + p] } else { 0 });
                assert_eq!(*lanes, expected);
            }
        }
    }

    #[test]
    fn float_tiles_load_too() {
        let images: Vec<f32> = (0..5_u8).map(f32::from).collect();
        let mut tile = Tile::new(1);
        tile.load(&images);
        assert_eq!(tile.pixels[0].0[..6], [0.0, 1.0, 2.0, 3.0, 4.0, 0.0]);
    }
}
