//! Energies on squares around pixels: those of the dense route, on images with a border where squares are small.

use std::ops::Range;

use ndarray::{Array3, ArrayView3};

use super::pass::Block;
use super::pieces::{Piece, Surround};
use crate::bank::Bank;
use crate::components::Components;
use crate::cpu::chunks::exact_chunks;
use crate::cpu::dense::arithmetic::TilePenalties;
use crate::cpu::dense::energies::SquareEnergies;
use crate::cpu::dense::residuals::{Beyond, Frame, Grid, ImageShape, Terms};
use crate::cpu::dense::single::penalise;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::tile::{Pixel, Tile};
use crate::error::Result;
use crate::query::Queries;
use crate::regime::{MAX_SHORT_SIDE, fixed_point_side};
use crate::simd::F32x16;

/// Squares of an odd side around every pixel.
pub(super) struct Squares {
    shape: [usize; 3],
    side: usize,
    beyond: Beyond,
    /// The squares of the padded image.
    windows: Components,
}

/// The working space of a thread.
#[derive(Debug, Default)]
pub(super) struct Space {
    squares: SquareEnergies,
    /// `[tile][column]`.
    energies: Vec<F32x16>,
    /// The values of a probe around some places.
    values: Vec<f32>,
}

impl Squares {
    pub(super) fn new(shape: [usize; 3], side: usize, wraps: bool) -> Result<Self> {
        let [_, height, width] = shape;
        let beyond = if wraps { Beyond::Opposite } else { Beyond::Nothing };
        let windows = Components::square(height + side - 1, width + side - 1, side)?;
        Ok(Self { shape, side, beyond, windows })
    }

    /// How pieces surround their places.
    pub(super) fn surround(&self) -> Surround {
        Surround {
            reach: self.side / 2,
            wraps: self.beyond == Beyond::Opposite,
            adds_border: self.side > MAX_SHORT_SIDE,
        }
    }

    /// Bytes of the working space of a thread.
    pub(super) fn workspace(&self, tiles: usize) -> usize {
        let padded = self.windows.height() * self.windows.width();
        4 * tiles * (self.side + 2) * self.windows.width() * size_of::<F32x16>()
            + self.shape[0] * padded * size_of::<f32>()
    }

    /// A query with a border: the pixels of the opposite side, or the centre of the data.
    pub(super) fn probe(&self, bank: &Bank<'_>, queries: &Queries<'_>, query: usize) -> Probe {
        let z = padded(queries.image(query).view(), self.surround(), bank.range().centre);
        Probe::new(bank, &self.windows, z.view(), queries.sigma()[query], query, false)
    }

    /// Sums over the squares, and over channels, of values of a padded image.
    pub(super) fn sums(&self, values: &[f64]) -> Vec<f64> {
        let plane = self.windows.height() * self.windows.width();
        let of_pixel = |p: usize| values[p..].iter().step_by(plane).sum();
        self.windows.sums(&(0..plane).map(of_pixel).collect::<Vec<f64>>())
    }

    /// Computes what all probes share, on a tile of a piece.
    pub(super) fn prepare<P: Pixel>(&self, job: &Job<'_, P>, piece: &Piece, tile: &mut Tile<P>, space: &mut Space) {
        if fixed_point_side(&self.windows, self.shape[0]).is_none() {
            return tile.square(job.isa);
        }
        let reach = job.bank.reach() * job.bank.unit();
        space.squares.square(job.isa, self.grid(piece), reach, tile, || job.is_stopped());
    }

    /// Hands the energies of a probe to `consume`, row by row; components have their places so many rows and columns further on.
    pub(super) fn compare<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        probe: &Probe,
        (piece, by): (&Piece, (usize, usize)),
        (tiles, penalties): (&[Tile<P>], &TilePenalties),
        space: &mut Space,
        mut consume: impl FnMut(&Block<'_, P>),
    ) {
        let [_, height, width] = self.shape;
        let Space { squares, energies, values } = space;
        self.values_around(&probe.values, piece, by, values);
        let (terms, grid) = (Terms { values, ..probe.terms() }, self.grid(piece));
        let count = piece.columns.len();
        energies.resize(tiles.len() * count, F32x16::ZERO);
        squares.start(grid, terms, tiles.len());
        for y in 0..grid.padded_height() {
            squares.push_row(job.isa, tiles, terms, energies);
            let Some(row) = (y + 1).checked_sub(self.side) else { continue };
            penalise(energies, count, penalties, probe.logit_scale);
            let first_of_row = (piece.rows.start + row + height - by.0) % height * width;
            for (part, x) in parts(piece.columns.start + width - by.1, count, width) {
                consume(&Block {
                    tiles,
                    energies,
                    first: first_of_row + x,
                    place: grid.frame.first + (row + piece.border) * grid.frame.stride + piece.border + part.start,
                    part,
                    apart: grid.frame.plane,
                    logit_scale: probe.logit_scale as f32,
                });
            }
        }
    }

    /// The windows of a piece.
    fn grid(&self, piece: &Piece) -> Grid {
        let ([channels, ..], (height, width)) = (self.shape, piece.size());
        let beyond = if piece.border < self.side / 2 { self.beyond } else { Beyond::None };
        let mut grid = Grid::of_all(ImageShape { channels, height, width }, self.side, beyond);
        if let Some((top, left)) = piece.part_at {
            let (rows, columns) = (self.windows.height(), self.windows.width());
            grid.frame = Frame { first: top * columns + left, stride: columns, plane: rows * columns };
        }
        grid
    }

    /// Copies the values of a probe around the places of a piece, from those of the padded image so many rows and columns before.
    fn values_around(&self, values: &[f32], piece: &Piece, by: (usize, usize), out: &mut Vec<f32>) {
        let ([_, height, width], (rows, columns), reach) = (self.shape, piece.size(), self.side / 2);
        let (padded_height, padded_width) = (self.windows.height(), self.windows.width());
        let first = (piece.rows.start + reach - piece.border, piece.columns.start + reach - piece.border);
        out.clear();
        for channel in exact_chunks(values, padded_height * padded_width) {
            for y in first.0..first.0 + rows {
                if by == (0, 0) {
                    out.extend_from_slice(&channel[y * padded_width + first.1..][..columns]);
                    continue;
                }
                // Whatever is shifted goes on at the opposite border.
                let y = (y + 2 * height - by.0 - reach) % height + reach;
                let inside = &channel[y * padded_width + reach..][..width];
                for (part, x) in parts(first.1 + 2 * width - by.1 - reach, columns, width) {
                    out.extend_from_slice(&inside[x..][..part.len()]);
                }
            }
        }
    }
}

/// So many columns from one on, which go on at the opposite border, in parts: which of them, and the column of the first.
fn parts(start: usize, count: usize, width: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let (first, x) = (done, (start + done) % width);
        done = count.min(done + width - x);
        (first < count).then_some((first..done, x))
    })
}

/// z with a border: the pixels of the opposite side, or the centre of the data.
fn padded(z: ArrayView3<'_, f64>, surround: Surround, centre: f64) -> Array3<f64> {
    let ((channels, height, width), border) = (z.dim(), surround.reach);
    Array3::from_shape_fn((channels, height + 2 * border, width + 2 * border), |(c, y, x)| {
        let place = surround.inside(y, border, height).zip(surround.inside(x, border, width));
        place.map_or(centre, |(y, x)| z[[c, y, x]])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_on_at_the_opposite_border() {
        let all = |start, count| parts(start, count, 5).collect::<Vec<_>>();
        assert_eq!(all(7, 5), [(0..3, 2), (3..5, 0)]);
        assert_eq!(all(5, 5), [(0..5, 0)]);
        assert_eq!(all(3, 9), [(0..2, 3), (2..7, 0), (7..9, 0)]);
    }

    #[test]
    fn noisy_images_are_padded_as_images_are() {
        let z = Array3::from_shape_fn((1, 2, 3), |(_, y, x)| (3 * y + x) as f64);
        let surround = |wraps| Surround { reach: 1, wraps, adds_border: false };
        let cut = padded(z.view(), surround(false), 9.0);
        assert_eq!(cut.index_axis(ndarray::Axis(1), 1).as_slice().unwrap(), [9.0, 0.0, 1.0, 2.0, 9.0]);
        assert!(cut.index_axis(ndarray::Axis(1), 3).iter().all(|&value| value == 9.0));
        let round = padded(z.view(), surround(true), 9.0);
        assert_eq!(round.index_axis(ndarray::Axis(1), 0).as_slice().unwrap(), [5.0, 3.0, 4.0, 5.0, 3.0]);
    }
}
