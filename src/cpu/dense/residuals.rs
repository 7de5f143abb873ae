//! `Residuals`: the terms of the energy, per pixel of a row and summed over channels, of a probe and the images of a tile.

use crate::components::Components;
use crate::cpu::tile::{Pixel, Tile};
use crate::simd::{F32x16, Vector};

/// The squares of differences.
pub(crate) const DIRECT: u8 = 0;
/// Squares of pixels plus products.
pub(crate) const EXPANDED: u8 = 1;
/// The products alone, where squares are added later.
pub(crate) const PRODUCTS: u8 = 2;
/// The squares alone.
pub(crate) const SQUARES: u8 = 3;
/// Differences times the values of a direction, which follow those of z.
pub(crate) const TANGENT: u8 = 4;
/// Squares of pixels plus products, as pixels times sums: needs no squares of the tile.
pub(crate) const FACTORED: u8 = 5;

/// What the terms of a sum over windows are: a form, and its values `[channel][row][column]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// One of the forms.
    pub(crate) form: u8,
    /// Its values; in the form [`TANGENT`] those of z, then those of the direction, sign reversed.
    pub(crate) values: &'a [f32],
    /// The fixed-point scale of the products, where windows are summed in fixed point.
    pub(crate) fixed_point_scale: Option<f32>,
}

/// The size of the images.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ImageShape {
    /// Channels.
    pub(crate) channels: usize,
    /// Rows.
    pub(crate) height: usize,
    /// Columns.
    pub(crate) width: usize,
}

impl ImageShape {
    /// Of the images of a composite and its tiles.
    #[must_use]
    pub(crate) fn of<P: Pixel>(components: &Components, tile: &Tile<P>) -> Self {
        Self { channels: tile.channels, height: components.height(), width: components.width() }
    }
}

/// Where images, or the rectangles of them that are looked at, lie in a tile.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Frame {
    /// The first pixel.
    pub(crate) first: usize,
    /// How far apart rows lie.
    pub(crate) stride: usize,
    /// How far apart channels lie.
    pub(crate) plane: usize,
}

impl Frame {
    /// Of images that are all that a tile holds.
    #[must_use]
    pub(crate) fn of_all(shape: ImageShape) -> Self {
        Self { first: 0, stride: shape.width, plane: shape.height * shape.width }
    }
}

/// What lies beyond the border of the images, for windows that reach over it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// No window reaches over it.
    #[default]
    None,
    /// Windows are centred at every pixel, and nothing beyond counts.
    Nothing,
    /// Windows are centred at every pixel, and go on at the opposite side.
    Opposite,
}

/// The square windows of images.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Grid {
    /// The size of the images.
    pub(crate) shape: ImageShape,
    /// The side of the windows.
    pub(crate) side: usize,
    /// What lies beyond the border.
    pub(crate) beyond: Beyond,
    /// Where the images lie in a tile.
    pub(crate) frame: Frame,
}

impl Grid {
    /// The windows of a composite that fit in its images.
    #[must_use]
    pub(crate) fn of<P: Pixel>(components: &Components, side: usize, tile: &Tile<P>) -> Self {
        Self::of_all(ImageShape::of(components, tile), side, Beyond::None)
    }

    /// The windows of images that are all that a tile holds.
    #[must_use]
    pub(crate) fn of_all(shape: ImageShape, side: usize, beyond: Beyond) -> Self {
        Self { shape, side, beyond, frame: Frame::of_all(shape) }
    }

    /// How far windows reach over the border.
    #[must_use]
    pub(crate) fn reach(self) -> usize {
        if self.beyond == Beyond::None { 0 } else { self.side / 2 }
    }

    /// Rows of images with what lies beyond: as many as have to be pushed.
    #[must_use]
    pub(crate) fn padded_height(self) -> usize {
        self.shape.height + 2 * self.reach()
    }

    /// Columns of images with what lies beyond.
    #[must_use]
    pub(crate) fn padded_width(self) -> usize {
        self.shape.width + 2 * self.reach()
    }

    /// Windows in a column.
    #[must_use]
    pub(crate) fn rows(self) -> usize {
        self.padded_height() + 1 - self.side
    }

    /// Windows in a row.
    #[must_use]
    pub(crate) fn columns(self) -> usize {
        self.padded_width() + 1 - self.side
    }

    /// The size of the images, and where they lie in a tile.
    #[must_use]
    pub(crate) fn framed(self) -> (ImageShape, Frame) {
        (self.shape, self.frame)
    }

    /// The first window of a row, among those of all that a tile holds.
    #[must_use]
    pub(crate) fn first_of_row(self, row: usize) -> usize {
        let (first, stride) = (self.frame.first, self.frame.stride);
        (first / stride + row) * (stride + 2 * self.reach() + 1 - self.side) + first % stride
    }

    /// The row of the image that is row `y` of the padded one, if there is any.
    #[must_use]
    pub(crate) fn row(self, y: usize) -> Option<usize> {
        let (reach, height) = (self.reach(), self.shape.height);
        match self.beyond {
            Beyond::Opposite => Some((y + height - reach) % height),
            Beyond::None | Beyond::Nothing => y.checked_sub(reach).filter(|&y| y < height),
        }
    }
}

/// The residuals of the pixels of a row in one of the forms, see [`crate::regime`]; `CHANNELS` is the number of
/// channels, or 0 where it is only known at run time. Rows are cut to one length, so that no access in a loop over
/// columns needs a check of its bounds.
#[derive(Debug)]
pub(crate) struct Residuals<'a, P: Pixel, const FORM: u8, const CHANNELS: usize> {
    pixels: [&'a [P::Packed]; CHANNELS],
    values: [&'a [f32]; CHANNELS],
    squares: &'a [F32x16],
    /// The values of the direction.
    direction: [&'a [f32]; CHANNELS],
    /// All pixels and values starting at this row, where the number of channels is not known.
    rest: (&'a [P::Packed], &'a [f32]),
    /// How far apart channels lie, of pixels and of values.
    planes: [usize; 2],
    /// From a value of z to that of the direction.
    to_direction: usize,
    /// -1, unknown to the compiler: see [`Self::add`].
    minus: f32,
    /// Columns.
    pub(crate) width: usize,
}

impl<'a, P: Pixel, const FORM: u8, const CHANNELS: usize> Residuals<'a, P, FORM, CHANNELS> {
    /// Row `y` of a tile and of the probe's values; [`SQUARES`] needs no values.
    #[inline(always)]
    #[must_use]
    pub(crate) fn of_row(tile: &'a Tile<P>, values: &'a [f32], shape: ImageShape, y: usize) -> Self {
        Self::of_framed_row(tile, values, (shape, Frame::of_all(shape)), y)
    }

    /// The same of images that lie somewhere in the tile.
    #[inline(always)]
    #[must_use]
    pub(crate) fn of_framed_row(
        tile: &'a Tile<P>,
        values: &'a [f32],
        (shape, frame): (ImageShape, Frame),
        y: usize,
    ) -> Self {
        let (plane, start, width) = (shape.height * shape.width, y * shape.width, shape.width);
        let first = frame.first + y * frame.stride;
        let mut row = Self {
            pixels: [&[]; CHANNELS],
            values: [&[]; CHANNELS],
            squares: &[],
            direction: [&[]; CHANNELS],
            rest: (&tile.pixels[first..], &[]),
            planes: [frame.plane, plane],
            to_direction: shape.channels * plane,
            minus: std::hint::black_box(-1.0),
            width,
        };
        for c in 0..CHANNELS {
            row.pixels[c] = &tile.pixels[c * frame.plane + first..][..width];
            if FORM != SQUARES {
                row.values[c] = &values[c * plane + start..][..width];
            }
            if FORM == TANGENT {
                row.direction[c] = &values[row.to_direction + c * plane + start..][..width];
            }
        }
        if FORM == EXPANDED {
            row.squares = &tile.squares[first..][..width];
        }
        if FORM != SQUARES {
            row.rest.1 = &values[start..];
        }
        row
    }

    /// `width` columns of the row, the first of which is column `start`.
    #[inline(always)]
    #[must_use]
    pub(crate) fn part(&self, start: usize, width: usize) -> Self {
        let mut part = Self { width, ..*self };
        for c in 0..CHANNELS {
            part.pixels[c] = &self.pixels[c][start..][..width];
            if FORM != SQUARES {
                part.values[c] = &self.values[c][start..][..width];
            }
            if FORM == TANGENT {
                part.direction[c] = &self.direction[c][start..][..width];
            }
        }
        if FORM == EXPANDED {
            part.squares = &self.squares[start..][..width];
        }
        part.rest.0 = &self.rest.0[start..];
        if FORM != SQUARES {
            part.rest.1 = &self.rest.1[start..];
        }
        part
    }

    /// Writes the residuals of all columns.
    #[inline(always)]
    pub(crate) fn write<V: Vector>(&self, row: &mut [F32x16]) {
        let row = &mut row[..self.width];
        let residuals = self.part(0, row.len());
        for x in 0..row.len() {
            residuals.at::<V>(x).store(&mut row[x]);
        }
    }

    /// The residual at column `x`.
    #[inline(always)]
    pub(crate) fn at<V: Vector>(&self, x: usize) -> V {
        let mut sum = if FORM == EXPANDED { V::load(&self.squares[x]) } else { V::splat(0.0) };
        for c in 0..CHANNELS {
            let a = P::centred(&self.pixels[c][x]);
            let z = if FORM == SQUARES { 0.0 } else { self.values[c][x] };
            let v = if FORM == TANGENT { self.direction[c][x] } else { 0.0 };
            sum = self.add(sum, c == 0, a, z, v);
        }
        if CHANNELS == 0 {
            let ((pixels, values), [apart, plane]) = (self.rest, self.planes);
            for (c, pixel) in pixels[x..].iter().step_by(apart).enumerate() {
                let z = if FORM == SQUARES { 0.0 } else { values[x + c * plane] };
                let v = if FORM == TANGENT { values[x + c * plane + self.to_direction] } else { 0.0 };
                sum = self.add(sum, c == 0, P::centred(pixel), z, v);
            }
        }
        sum
    }

    /// The products of several tiles with the same values at column `x`. Each value is read once, which the compiler
    /// does not achieve by itself.
    #[inline(always)]
    pub(crate) fn of_tiles<V: Vector, const T: usize>(tiles: &[Self; T], x: usize) -> [V; T] {
        debug_assert!(FORM == PRODUCTS, "other forms have terms besides the products");
        let mut sums = [V::splat(0.0); T];
        if CHANNELS == 0 {
            for t in 0..T {
                sums[t] = tiles[t].at(x);
            }
        }
        for c in 0..CHANNELS {
            let z = tiles[0].values[c][x];
            for t in 0..T {
                sums[t] = tiles[t].add(sums[t], c == 0, P::centred(&tiles[t].pixels[c][x]), z, 0.0);
            }
        }
        sums
    }

    /// Adds the residual of a channel; `first` says that the sum holds only squares yet. The loops of the direct form are
    /// bound by additions, so the difference is formed as the multiply-add `-1 a + z`, which is the same number; a compiler
    /// that knew the factor would turn it back into a subtraction.
    #[inline(always)]
    fn add<V: Vector>(&self, sum: V, first: bool, a: V, z: f32, v: f32) -> V {
        match FORM {
            TANGENT => a.mul_add(V::splat(self.minus), V::splat(z)).mul_add(V::splat(v), sum),
            DIRECT => {
                let t = a.mul_add(V::splat(self.minus), V::splat(z));
                t.mul_add(t, sum)
            }
            FACTORED if first => a.mul(a.add(V::splat(z))),
            FACTORED => a.mul_add(a.add(V::splat(z)), sum),
            PRODUCTS if first => a.mul(V::splat(z)),
            PRODUCTS | EXPANDED => a.mul_add(V::splat(z), sum),
            _ if first => a.mul(a),
            _ => a.mul_add(a, sum),
        }
    }
}
