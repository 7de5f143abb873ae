//! `Tile`: sixteen images transposed so that every pixel holds its sixteen values side by side.

use super::isa::dispatched;
use super::lanes::{LANES, Lanes};

/// A stored pixel.
pub trait Pixel: Copy + Default + Send + Sync + 'static {
    /// Its value as stored, centre and unit not applied.
    fn value(self) -> f32;
}

impl Pixel for u8 {
    #[inline(always)]
    fn value(self) -> f32 {
        f32::from(self)
    }
}

impl Pixel for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

/// The same pixel of sixteen images.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub struct PixelLanes<P>(pub [P; LANES]);

impl<P: Pixel> PixelLanes<P> {
    /// The stored values as numbers.
    #[inline(always)]
    pub fn values(self) -> Lanes {
        let mut out = Lanes::ZERO;
        for (o, p) in out.0.iter_mut().zip(self.0) {
            *o = p.value();
        }
        out
    }
}

/// Sixteen images, `[channel][row][column][lane]`; lanes beyond `valid` hold zeros.
#[derive(Debug)]
pub struct Tile<P> {
    /// The pixels.
    pub pixels: Vec<PixelLanes<P>>,
    /// Number of lanes that hold an image.
    pub valid: usize,
}

impl<P: Pixel> Tile<P> {
    /// An empty tile for images of `image_len` values.
    #[must_use]
    pub fn new(image_len: usize) -> Self {
        Self { pixels: vec![PixelLanes([P::default(); LANES]); image_len], valid: 0 }
    }

    /// Fills the tile with up to sixteen images laid one after the other.
    pub fn load(&mut self, isa: super::isa::Isa, images: &[P]) {
        let image_len = self.pixels.len();
        self.valid = images.len() / image_len;
        if self.valid < LANES {
            self.pixels.fill(PixelLanes([P::default(); LANES]));
        }
        transpose(isa, images, &mut self.pixels);
    }
}

dispatched! {
    /// Copies images `[lane][pixel]` to `[pixel][lane]`.
    fn transpose<P: Pixel>(images: &[P], pixels: &mut [PixelLanes<P>]) = transpose_body
}

#[inline(always)]
fn transpose_body<const FMA: bool, P: Pixel>(images: &[P], pixels: &mut [PixelLanes<P>]) {
    // Blocks of this many pixels stay in registers or the nearest cache while all lanes are visited.
    const BLOCK: usize = 64;
    let image_len = pixels.len();
    for (block, out) in pixels.chunks_mut(BLOCK).enumerate() {
        for (lane, image) in images.chunks_exact(image_len).enumerate() {
            let start = block * BLOCK;
            for (o, p) in out.iter_mut().zip(&image[start..]) {
                o.0[lane] = *p;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    #[test]
    fn lanes_hold_images_and_the_rest_is_zero() {
        let images: Vec<u8> = (0..3 * 70_u8).collect();
        for isa in Isa::available() {
            let mut tile = Tile::new(70);
            tile.load(isa, &[7_u8; 16 * 70]);
            tile.load(isa, &images);
            assert_eq!(tile.valid, 3);
            for (p, lanes) in tile.pixels.iter().enumerate() {
                let mut expected = [0; LANES];
                (0..3).for_each(|lane| expected[lane] = images[lane * 70 + p]);
                assert_eq!(lanes.0, expected);
            }
        }
    }
}
