//! `Tile`: sixteen images transposed so that every pixel holds its sixteen values side by side.

use crate::simd::{Bf16x16, F32x16, Isa, Kernel, LANES, U16x32, Vector, WIDE, centred_i16, prefetch, transpose_bytes};

/// A stored pixel.
pub(crate) trait Pixel: Copy + Send + Sync + 'static {
    /// The same pixel of sixteen images, in memory, less the centre of its range.
    type Packed: PixelLanes<Self>;

    /// What pads rows of pixels.
    const BLANK: Self;

    /// The values as numbers, less the centre of their range.
    fn centred<V: Vector>(lanes: &Self::Packed) -> V;

    /// Sixteen pixels side by side as numbers, less `centre`.
    fn centred_row<V: Vector>(pixels: &[Self; LANES], centre: f32) -> V;

    /// Its value less `centre`.
    fn number(self, centre: f32) -> f64;

    /// Whether any pixel is further than `reach` from `centre`, or NaN: bytes never are.
    fn any_beyond(_pixels: &[Self], _centre: f32, _reach: f32) -> bool {
        false
    }

    /// The pixels, if they are bytes.
    fn bytes(_pixels: &[Self]) -> Option<&[u8]> {
        None
    }
}

/// The memory of the same pixel of sixteen images or more, less the centre of its range.
pub(crate) trait PixelLanes<P>: Copy + Send + Sync + 'static {
    /// Zero in every lane.
    const ZERO: Self;

    /// Writes a pixel's value less `centre` to one lane.
    fn set_pixel(&mut self, lane: usize, pixel: P, centre: f32);

    /// Transposes the leading pixels of sixteen images, in blocks, to sixteen lanes, the first of which is `first`; returns
    /// how many pixels it transposed.
    fn transpose_blocks(_isa: Isa, _images: &[&[P]; LANES], _first: usize, _places: &mut [Self]) -> usize {
        0
    }
}

/// The memory of the same byte of sixteen images or more.
pub(crate) trait ByteLanes: PixelLanes<u8> {
    /// Whether pixels are transposed in blocks of [`WIDE`]; sixteen bits of 32 images gain nothing by that.
    const IN_WIDE_BLOCKS: bool;

    /// Writes the same pixel of sixteen images to sixteen lanes, the first of which is `first`.
    fn set_16<V: Vector>(&mut self, first: usize, bytes: &[u8; LANES]);
}

/// Half the range of a byte. `u - 127.5` has eight significant bits, so that [`Bf16x16`] hold it exactly.
const CENTRE: f32 = 127.5;

impl Pixel for u8 {
    type Packed = Bf16x16;
    const BLANK: Self = 0;

    #[inline(always)]
    fn centred<V: Vector>(lanes: &Self::Packed) -> V {
        V::load_bf16(lanes)
    }

    #[inline(always)]
    fn centred_row<V: Vector>(pixels: &[Self; LANES], centre: f32) -> V {
        V::load_bytes(pixels).sub(V::splat(centre))
    }

    #[inline(always)]
    fn number(self, centre: f32) -> f64 {
        f64::from(self) - f64::from(centre)
    }

    fn bytes(pixels: &[Self]) -> Option<&[u8]> {
        Some(pixels)
    }
}

impl PixelLanes<u8> for Bf16x16 {
    const ZERO: Self = Self::ZERO;

    fn set_pixel(&mut self, lane: usize, pixel: u8, centre: f32) {
        self.set(lane, f32::from(pixel) - centre);
    }

    fn transpose_blocks(isa: Isa, images: &[&[u8]; LANES], first: usize, places: &mut [Self]) -> usize {
        isa.run(TransposeBytes { images, first, places })
    }
}

impl ByteLanes for Bf16x16 {
    const IN_WIDE_BLOCKS: bool = true;

    #[inline(always)]
    fn set_16<V: Vector>(&mut self, _first: usize, bytes: &[u8; LANES]) {
        V::load_bytes(bytes).sub(V::splat(CENTRE)).store_bf16(self);
    }
}

impl PixelLanes<u8> for U16x32 {
    const ZERO: Self = Self::ZERO;

    fn set_pixel(&mut self, lane: usize, pixel: u8, centre: f32) {
        self.0[lane] = ((128.0 * pixel.number(centre)) as i16).cast_unsigned();
    }

    fn transpose_blocks(isa: Isa, images: &[&[u8]; LANES], first: usize, places: &mut [Self]) -> usize {
        isa.run(TransposeBytes { images, first, places })
    }
}

impl ByteLanes for U16x32 {
    const IN_WIDE_BLOCKS: bool = false;

    #[inline(always)]
    fn set_16<V: Vector>(&mut self, first: usize, bytes: &[u8; LANES]) {
        self.0.as_chunks_mut().0[first / LANES] = centred_i16(bytes);
    }
}

/// How many blocks ahead pixels are fetched from memory: sixteen images are too many for the prefetcher of a core to follow.
const BLOCKS_AHEAD: usize = 3;

struct TransposeBytes<'a, L: ByteLanes> {
    images: &'a [&'a [u8]; LANES],
    first: usize,
    places: &'a mut [L],
}

impl<L: ByteLanes> Kernel for TransposeBytes<'_, L> {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        let Self { images, first, places } = self;
        let transposed = places.len() / LANES * LANES;
        let (wide, rest) = if L::IN_WIDE_BLOCKS { places.as_chunks_mut::<WIDE>() } else { (&mut [][..], places) };
        let start = wide.len() * WIDE;
        for (block, places) in wide.iter_mut().enumerate() {
            let (mut rows, mut columns) = ([&[0; WIDE]; LANES], [[0; LANES]; WIDE]);
            for (row, image) in rows.iter_mut().zip(images) {
                *row = &image.as_chunks().0[block];
                if let Some(pixel) = image.get((block + BLOCKS_AHEAD) * WIDE) {
                    prefetch(pixel);
                }
            }
            V::transpose_wide(&rows, &mut columns);
            for (place, bytes) in places.iter_mut().zip(&columns) {
                place.set_16::<V>(first, bytes);
            }
        }
        for (block, places) in rest.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let (mut rows, mut columns) = ([&[0; LANES]; LANES], [[0; LANES]; LANES]);
            for (row, image) in rows.iter_mut().zip(images) {
                *row = &image[start..].as_chunks().0[block];
            }
            transpose_bytes(&rows, &mut columns);
            for (place, bytes) in places.iter_mut().zip(&columns) {
                place.set_16::<V>(first, bytes);
            }
        }
        transposed
    }
}

impl Pixel for f32 {
    type Packed = F32x16;
    const BLANK: Self = 0.0;

    #[inline(always)]
    fn centred<V: Vector>(lanes: &Self::Packed) -> V {
        V::load(lanes)
    }

    #[inline(always)]
    fn centred_row<V: Vector>(pixels: &[Self; LANES], centre: f32) -> V {
        V::load(&F32x16(*pixels)).sub(V::splat(centre))
    }

    #[inline(always)]
    fn number(self, centre: f32) -> f64 {
        f64::from(self) - f64::from(centre)
    }

    #[inline(always)]
    fn any_beyond(pixels: &[Self], centre: f32, reach: f32) -> bool {
        // Those within are counted, so that NaN is beyond.
        pixels.iter().map(|pixel| usize::from((pixel - centre).abs() <= reach)).sum::<usize>() < pixels.len()
    }
}

impl PixelLanes<f32> for F32x16 {
    const ZERO: Self = Self::ZERO;

    fn set_pixel(&mut self, lane: usize, pixel: f32, centre: f32) {
        self.0[lane] = pixel - centre;
    }
}

/// Whether any pixel is further than `reach` from `centre`, or NaN.
pub(crate) struct AnyBeyond<'a, P: Pixel> {
    pub(crate) pixels: &'a [P],
    pub(crate) centre: f32,
    pub(crate) reach: f32,
}

impl<P: Pixel> Kernel for AnyBeyond<'_, P> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Vector>(self) -> bool {
        P::any_beyond(self.pixels, self.centre, self.reach)
    }
}

/// Sixteen images, `[channel][row][column][lane]`; lanes beyond `valid` hold zeros.
#[derive(Debug)]
pub(crate) struct Tile<P: Pixel> {
    /// The pixels, less the centre of their range.
    pub(crate) pixels: Vec<P::Packed>,
    /// Their squares summed over channels, `[row][column][lane]`, once [`Tile::square`] has computed them.
    pub(crate) squares: Vec<F32x16>,
    /// The sums of those squares over windows, `[window][lane]`, where energies are summed in fixed point.
    pub(crate) window_squares: Vec<F32x16>,
    /// Number of lanes that hold an image.
    pub(crate) valid: usize,
    /// Channels of an image.
    pub(crate) channels: usize,
}

impl<P: Pixel> Tile<P> {
    /// An empty tile for images of `channels` times `plane` values.
    #[must_use]
    pub(crate) fn new(channels: usize, plane: usize) -> Self {
        Self {
            channels,
            pixels: vec![P::Packed::ZERO; channels * plane],
            squares: Vec::new(),
            window_squares: Vec::new(),
            valid: 0,
        }
    }

    /// Fills the tile with up to sixteen images, whose pixels have this centre.
    pub(crate) fn load(&mut self, isa: Isa, images: &[&[P]], centre: f32) {
        transpose(isa, images, centre, 0, &mut self.pixels);
        self.valid = images.len();
    }

    /// Fills in the squares, which the expanded form of the energies shares among all probes.
    pub(crate) fn square(&mut self, isa: Isa) {
        self.squares.resize(self.pixels.len() / self.channels, F32x16::ZERO);
        isa.run(Squares { tile: self });
    }
}

/// Transposes up to sixteen rows of pixels of the same length, so that the first of them fills lane `first`. Where `first`
/// is 0, lanes without a row are zero.
pub(crate) fn transpose<P: Pixel, L: PixelLanes<P>>(
    isa: Isa,
    rows: &[&[P]],
    centre: f32,
    first: usize,
    places: &mut [L],
) {
    let mut start = 0;
    if let Ok(all) = rows.try_into() {
        start = L::transpose_blocks(isa, all, first, places);
    } else if first == 0 {
        places.fill(L::ZERO);
    }
    for (lane, row) in rows.iter().enumerate() {
        for (place, &pixel) in places[start..].iter_mut().zip(&row[start..]) {
            place.set_pixel(first + lane, pixel, centre);
        }
    }
}

struct Squares<'a, P: Pixel> {
    tile: &'a mut Tile<P>,
}

impl<P: Pixel> Kernel for Squares<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { tile } = self;
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::images::Images;
    use crate::simd::Portable;

    fn lanes<P: Pixel>(pixel: &P::Packed) -> [f32; LANES] {
        let mut out = F32x16::ZERO;
        P::centred::<Portable<false>>(pixel).store(&mut out);
        out.0
    }

    #[test]
    fn lanes_hold_images_and_the_rest_is_zero() {
        // 90 pixels: four blocks side by side, one more, and a rest.
        let images: Vec<u8> = (0..16 * 90_u32).map(|i| (i * 37 % 251) as u8).collect();
        for isa in Isa::available() {
            let mut tile = Tile::new(1, 90);
            for valid in [16, 3] {
                tile.load(isa, &Images::side_by_side(&images[..valid * 90], 90), CENTRE);
                tile.square(isa);
                assert_eq!(tile.valid, valid);
                for (p, pixel) in tile.pixels.iter().enumerate() {
                    let value = |lane: usize| f32::from(images[lane * 90 + p]) - 127.5;
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
        tile.load(Isa::best().unwrap(), &Images::side_by_side(&images, 1), 1.0);
        assert_eq!(tile.pixels[0].0[..6], [-1.0, 0.0, 1.0, 2.0, 3.0, 0.0]);
    }

    #[test]
    fn pixels_out_of_reach_are_seen_and_so_is_nan() {
        for isa in Isa::available() {
            for (value, beyond) in [(2.0, false), (-2.0, false), (2.1, true), (f32::NAN, true), (f32::INFINITY, true)] {
                let mut pixels = vec![1.0; 40];
                pixels[37] = 1.0 + value;
                assert_eq!(isa.run(AnyBeyond { pixels: &pixels, centre: 1.0, reach: 2.0 }), beyond, "{value}");
            }
        }
    }
}
