//! Errors: what a probe and the images of a tile differ by at every pixel of a row, summed over channels.

use super::simd::{Lanes, Vector};
use super::tile::{Pixel, Tile};
use crate::windows::Windows;

/// The squares of differences.
pub(super) const DIRECT: u8 = 0;
/// Squares of pixels plus products.
pub(super) const EXPANDED: u8 = 1;
/// The products alone, where squares are added later.
pub(super) const PRODUCTS: u8 = 2;
/// The squares alone.
pub(super) const SQUARES: u8 = 3;

/// The size of the images.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Channels.
    pub(super) channels: usize,
    /// Rows.
    pub(super) height: usize,
    /// Columns.
    pub(super) width: usize,
}

impl Shape {
    /// Of the images of a composite and its tiles.
    #[must_use]
    pub(super) fn of<P: Pixel>(windows: &Windows, tile: &Tile<P>) -> Self {
        Self { channels: tile.channels, height: windows.height(), width: windows.width() }
    }
}

/// The errors of the pixels of a row in one of the forms, see [`super::probe`]; `CHANNELS` is the number of channels, or 0
/// where it is only known at run time. Rows are cut to one length, so that no access in a loop over columns needs a check
/// of its bounds.
#[derive(Debug)]
pub(super) struct Errors<'a, P: Pixel, const FORM: u8, const CHANNELS: usize> {
    pixels: [&'a [P::Lanes]; CHANNELS],
    values: [&'a [f32]; CHANNELS],
    squares: &'a [Lanes],
    /// All pixels and values from the row on, where the number of channels is not known.
    rest: (&'a [P::Lanes], &'a [f32]),
    plane: usize,
    /// -1, unknown to the compiler: see [`Self::add`].
    minus: f32,
    /// Columns.
    pub(super) width: usize,
}

impl<'a, P: Pixel, const FORM: u8, const CHANNELS: usize> Errors<'a, P, FORM, CHANNELS> {
    /// Row `y` of a tile and of the probe's values, which the form of squares does not need.
    #[inline(always)]
    #[must_use]
    pub(super) fn of_row(tile: &'a Tile<P>, values: &'a [f32], shape: Shape, y: usize) -> Self {
        let (plane, start, width) = (shape.height * shape.width, y * shape.width, shape.width);
        let mut row = Self {
            pixels: [&[]; CHANNELS],
            values: [&[]; CHANNELS],
            squares: &[],
            rest: (&tile.pixels[start..], &[]),
            plane,
            minus: std::hint::black_box(-1.0),
            width,
        };
        for c in 0..CHANNELS {
            row.pixels[c] = &tile.pixels[c * plane + start..][..width];
            if FORM != SQUARES {
                row.values[c] = &values[c * plane + start..][..width];
            }
        }
        if FORM == EXPANDED {
            row.squares = &tile.squares[start..][..width];
        }
        if FORM != SQUARES {
            row.rest.1 = &values[start..];
        }
        row
    }

    /// `width` columns of the row, from column `start` on.
    #[inline(always)]
    #[must_use]
    pub(super) fn part(&self, start: usize, width: usize) -> Self {
        let mut part = Self { width, ..*self };
        for c in 0..CHANNELS {
            part.pixels[c] = &self.pixels[c][start..][..width];
            if FORM != SQUARES {
                part.values[c] = &self.values[c][start..][..width];
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

    /// Writes all of the row.
    #[inline(always)]
    pub(super) fn write<V: Vector>(&self, row: &mut [Lanes]) {
        let row = &mut row[..self.width];
        let errors = self.part(0, row.len());
        for x in 0..row.len() {
            errors.at::<V>(x).store(&mut row[x]);
        }
    }

    /// The error at column `x`.
    #[inline(always)]
    pub(super) fn at<V: Vector>(&self, x: usize) -> V {
        let mut sum = if FORM == EXPANDED { V::load(&self.squares[x]) } else { V::splat(0.0) };
        for c in 0..CHANNELS {
            let a = P::centred(&self.pixels[c][x]);
            let z = if FORM == SQUARES { 0.0 } else { self.values[c][x] };
            sum = self.add(sum, c == 0, a, z);
        }
        if CHANNELS == 0 {
            let (pixels, values) = self.rest;
            for (c, pixel) in pixels[x..].iter().step_by(self.plane).enumerate() {
                let z = if FORM == SQUARES { 0.0 } else { values[x + c * self.plane] };
                sum = self.add(sum, c == 0, P::centred(pixel), z);
            }
        }
        sum
    }

    /// Adds the error of a channel; `first` says that the sum holds nothing yet but squares. Additions bound the loops of
    /// the direct form, so differences are formed as `-1 a + z`, the same number, by units that multiply; a compiler that
    /// knew the factor would turn that back.
    #[inline(always)]
    fn add<V: Vector>(&self, sum: V, first: bool, a: V, z: f32) -> V {
        match FORM {
            DIRECT => {
                let t = a.mul_add(V::splat(self.minus), V::splat(z));
                t.mul_add(t, sum)
            }
            PRODUCTS if first => a.mul(V::splat(z)),
            PRODUCTS | EXPANDED => a.mul_add(V::splat(z), sum),
            _ if first => a.mul(a),
            _ => a.mul_add(a, sum),
        }
    }
}
