//! `MaskRuns`: masks cut into horizontal runs, and runs into pieces of a power of two, whose sums are read from doubling
//! tables.
//!
//! Table `j` holds at position `p` the sum of the `2^j` values that start at `p`; table 0 is the plane itself. A run of 13
//! pixels then takes three reads (8 + 4 + 1) instead of thirteen, and no subtraction.
//!
//! Where subtractions lose nothing, two reads are enough: of the sums of the row up to the two edges of the run. Seen from the
//! pixels, each has the masks of which a run begins or ends there ([`Edges`]).

use ndarray::ArrayView3;

use crate::error::{Error, Result};

/// `2^level` consecutive pixels of a row, the first at flat position `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Log2 of the number of pixels.
    pub level: u32,
    /// Flat position of the first pixel.
    pub at: u32,
    /// Its position in the tables, which lie one after the other.
    pub place: u32,
}

/// The pieces of every mask.
#[derive(Debug, Clone)]
pub struct MaskRuns {
    pieces: Vec<Piece>,
    /// `pieces[starts[k]..starts[k + 1]]` belong to mask `k`.
    starts: Vec<usize>,
    levels: u32,
    /// Pixels of an image.
    plane: usize,
    edges: Box<Edges>,
}

/// Where the runs of masks begin and end: at the edge `y (width + 1) + x` on the left of pixel x, which is the right one of x - 1.
#[derive(Debug, Clone)]
pub struct Edges {
    /// `[begin, end]` of the runs of all masks, one mask after the other.
    runs: Vec<[u32; 2]>,
    /// `runs[starts[k]..starts[k + 1]]` belong to mask `k`.
    starts: Vec<usize>,
    begins: Lists,
    ends: Lists,
    width: usize,
}

/// The masks at every edge.
#[derive(Debug, Clone)]
struct Lists {
    masks: Vec<u32>,
    /// `masks[starts[e]..starts[e + 1]]` are those at edge `e`.
    starts: Vec<usize>,
}

impl Lists {
    /// Of pairs of edge and mask, in the order of the masks.
    fn new(edges: usize, pairs: impl Iterator<Item = (u32, usize)> + Clone) -> Self {
        let mut starts = vec![0; edges + 1];
        pairs.clone().for_each(|(edge, _)| starts[edge as usize + 1] += 1);
        (0..edges).for_each(|edge| starts[edge + 1] += starts[edge]);
        let (mut next, mut masks) = (starts.clone(), vec![0; starts[edges]]);
        for (edge, mask) in pairs {
            let next = &mut next[edge as usize];
            masks[*next] = mask as u32;
            *next += 1;
        }
        Self { masks, starts }
    }

    fn at(&self, edge: usize) -> &[u32] {
        &self.masks[self.starts[edge]..self.starts[edge + 1]]
    }
}

impl Edges {
    fn new(runs: Vec<[u32; 2]>, starts: Vec<usize>, (height, width): (usize, usize)) -> Self {
        let masks =
            starts.windows(2).enumerate().flat_map(|(k, of_mask)| std::iter::repeat_n(k, of_mask[1] - of_mask[0]));
        let lists =
            |end: usize| Lists::new(height * (width + 1), runs.iter().map(move |run| run[end]).zip(masks.clone()));
        Self { begins: lists(0), ends: lists(1), runs, starts, width }
    }

    /// `[begin, end]` of the runs of mask `k`.
    #[must_use]
    #[inline]
    pub fn runs(&self, k: usize) -> &[[u32; 2]] {
        &self.runs[self.starts[k]..self.starts[k + 1]]
    }

    /// The masks of which a run begins at an edge.
    #[must_use]
    #[inline]
    pub fn begins(&self, edge: usize) -> &[u32] {
        self.begins.at(edge)
    }

    /// The masks of which a run ends at an edge.
    #[must_use]
    #[inline]
    pub fn ends(&self, edge: usize) -> &[u32] {
        self.ends.at(edge)
    }

    fn mirrored(&self) -> Self {
        let (edges, width) = (self.begins.starts.len() - 1, self.width as u32);
        let flip = |edge: u32| edge + width - 2 * (edge % (width + 1));
        let runs = self.runs.iter().map(|&[begin, end]| [flip(end), flip(begin)]).collect();
        Self::new(runs, self.starts.clone(), (edges / (self.width + 1), self.width))
    }
}

impl MaskRuns {
    /// Cuts masks of `[components, height, width]`; an empty mask is an error.
    pub fn new(masks: ArrayView3<'_, bool>) -> Result<Self> {
        let (_, height, width) = masks.dim();
        let edges = Box::new(Edges::new(Vec::new(), vec![0], (height, width)));
        let mut runs = Self { pieces: Vec::new(), starts: vec![0], levels: 1, plane: height * width, edges };
        let (mut edges, mut starts) = (Vec::new(), vec![0]);
        for (index, mask) in masks.outer_iter().enumerate() {
            for (y, row) in mask.outer_iter().enumerate() {
                let mut x = 0;
                while x < width {
                    let len = (x..width).take_while(|&x| row[x]).count();
                    if len > 0 {
                        runs.push_run(y * width + x, len);
                        edges.push([x, x + len].map(|edge| (y * (width + 1) + edge) as u32));
                    }
                    x += len + 1;
                }
            }
            if runs.pieces.len() == runs.starts[index] {
                return Err(Error::EmptyMask { index });
            }
            runs.starts.push(runs.pieces.len());
            starts.push(edges.len());
        }
        Ok(Self { edges: Box::new(Edges::new(edges, starts, (height, width))), ..runs })
    }

    fn push_run(&mut self, mut at: usize, mut len: usize) {
        while len > 0 {
            let level = len.ilog2();
            self.levels = self.levels.max(level + 1);
            self.pieces.push(piece(level, at, self.plane));
            at += 1 << level;
            len -= 1 << level;
        }
    }

    /// Number of masks.
    #[must_use]
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Number of doubling tables the pieces refer to.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.levels as usize
    }

    /// The pieces of mask `k`.
    #[must_use]
    pub fn pieces(&self, k: usize) -> &[Piece] {
        &self.pieces[self.starts[k]..self.starts[k + 1]]
    }

    /// Where their runs begin and end.
    #[must_use]
    pub fn edges(&self) -> &Edges {
        &self.edges
    }

    /// How many masks select each of the image's pixels.
    #[must_use]
    pub fn cover(&self, pixels: usize) -> Vec<u32> {
        let mut cover = vec![0; pixels];
        for piece in &self.pieces {
            let at = piece.at as usize;
            cover[at..at + (1 << piece.level)].iter_mut().for_each(|c| *c += 1);
        }
        cover
    }

    /// The masks flipped left to right, in the same order.
    #[must_use]
    pub fn mirrored(&self, width: usize) -> Self {
        let flip = |piece: &Piece| {
            let (y, x) = (piece.at as usize / width, piece.at as usize % width);
            self::piece(piece.level, y * width + width - x - (1 << piece.level), self.plane)
        };
        let (pieces, edges) = (self.pieces.iter().map(flip).collect(), Box::new(self.edges.mirrored()));
        Self { pieces, starts: self.starts.clone(), edges, ..*self }
    }
}

fn piece(level: u32, at: usize, plane: usize) -> Piece {
    Piece { level, at: at as u32, place: (level as usize * plane + at) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use proptest::prelude::*;

    fn paint(runs: &MaskRuns, k: usize, pixels: usize) -> Vec<u32> {
        let mut plane = vec![0; pixels];
        for piece in runs.pieces(k) {
            let at = piece.at as usize;
            plane[at..at + (1 << piece.level)].iter_mut().for_each(|p| *p += 1);
        }
        plane
    }

    /// The same by edges, seen from the mask and from the pixels.
    fn paint_edges(runs: &MaskRuns, (height, width): (usize, usize)) -> [Vec<u32>; 2] {
        let (mut by_mask, mut by_pixel) = (vec![0; height * width], vec![0; height * width]);
        for &[begin, end] in runs.edges().runs(0) {
            let (begin, end) = (begin as usize, end as usize);
            assert_eq!(begin / (width + 1), end / (width + 1), "a run ends in its row");
            let y = begin / (width + 1);
            by_mask[begin - y..end - y].iter_mut().for_each(|p| *p += 1);
        }
        for y in 0..height {
            let mut inside = 0;
            for x in 0..=width {
                let edge = y * (width + 1) + x;
                assert!(runs.edges().begins(edge).iter().chain(runs.edges().ends(edge)).all(|&k| k == 0));
                inside = inside + runs.edges().begins(edge).len() - runs.edges().ends(edge).len();
                if x < width {
                    by_pixel[y * width + x] = inside as u32;
                }
            }
            assert_eq!(inside, 0);
        }
        [by_mask, by_pixel]
    }

    proptest! {
        #[test]
        fn pieces_paint_the_mask_once_and_mirrored_its_flip(
            (height, width, bits) in (1_usize..7, 1_usize..20).prop_flat_map(|(h, w)| {
                (Just(h), Just(w), proptest::collection::vec(any::<bool>(), h * w))
            })
        ) {
            prop_assume!(bits.contains(&true));
            let masks = Array3::from_shape_vec((1, height, width), bits).expect("sized");
            let runs = MaskRuns::new(masks.view()).expect("not empty");
            let expected: Vec<u32> = masks.iter().map(|&b| u32::from(b)).collect();
            prop_assert_eq!(&paint(&runs, 0, height * width), &expected);
            prop_assert_eq!(paint_edges(&runs, (height, width)), [expected.clone(), expected]);
            let flipped: Vec<u32> = masks.slice(ndarray::s![.., .., ..;-1]).iter().map(|&b| u32::from(b)).collect();
            let mirrored = runs.mirrored(width);
            prop_assert_eq!(&paint(&mirrored, 0, height * width), &flipped);
            prop_assert_eq!(paint_edges(&mirrored, (height, width)), [flipped.clone(), flipped]);
        }
    }
}
