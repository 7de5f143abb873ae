//! Pieces: the views of a filter, cut into rectangles of places, each with a border of the pixels around it.
//!
//! Views that are one another shifted around share a piece: instead of the image, z is shifted the other way.

use std::ops::Range;

use crate::filter::{Filter, View};

/// How far components see around their pixels, and whether they go on at the opposite border.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surround {
    pub(super) reach: usize,
    pub(super) wraps: bool,
    /// Whether energies of whole images need no copy of the pixels beyond the border.
    pub(super) adds_border: bool,
}

impl Surround {
    /// The row or column of an image of `len` that is number `at` of an image with a border; none beyond a border that cuts.
    pub(super) fn inside(self, at: usize, border: usize, len: usize) -> Option<usize> {
        match at.checked_sub(border).filter(|&at| at < len) {
            None if self.wraps => Some((at + len * border.div_ceil(len) - border) % len),
            inside => inside,
        }
    }

    /// The place of an image of a size that is at this row and column of an image with a border.
    fn place(self, (y, x): (usize, usize), border: usize, (height, width): (usize, usize)) -> Option<usize> {
        let (y, x) = (self.inside(y, border, height)?, self.inside(x, border, width)?);
        Some(y * width + x)
    }

    /// The row and column at which the pixels of a piece of so many columns are a part of the whole images with their border.
    fn part_at(
        self,
        pixels: &[Option<u32>],
        columns: usize,
        (height, width): (usize, usize),
    ) -> Option<(usize, usize)> {
        let first = pixels.iter().position(Option::is_some)?;
        let pixel = pixels[first]? as usize;
        let top = (pixel / width + self.reach).checked_sub(first / columns)?;
        let left = (pixel % width + self.reach).checked_sub(first % columns)?;
        let rows = pixels.len() / columns;
        let fits = top + rows <= height + 2 * self.reach && left + columns <= width + 2 * self.reach;
        let is_same = |(at, pixel): (usize, &Option<u32>)| {
            let place = (top + at / columns, left + at % columns);
            pixel.map(|pixel| pixel as usize) == self.place(place, self.reach, (height, width))
        };
        (fits && pixels.iter().enumerate().all(is_same)).then_some((top, left))
    }
}

/// The pieces of all views, and the whole images with their border if any is a part of them.
pub(super) struct Pieces {
    pub(super) all: Vec<Piece>,
    pub(super) bordered: Option<Piece>,
}

impl Pieces {
    /// Of a filter whose components are the pixels; `None` if a view is seen by components that are no rectangles.
    pub(super) fn new(filter: &Filter, surround: Surround) -> Option<Self> {
        let [_, height, width] = filter.shape();
        let all = pieces_of(filter, surround)?;
        let has_parts = all.iter().any(|piece| piece.part_at.is_some());
        Some(Self { all, bordered: has_parts.then(|| Piece::bordered(surround, (height, width))) })
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> usize {
        self.each().map(Piece::bytes).sum()
    }

    /// The pixels of the largest that is copied.
    pub(super) fn most_pixels(&self) -> usize {
        let copied = self.each().filter(|piece| piece.part_at.is_none()).map(Piece::size);
        copied.map(|(rows, columns)| rows * columns).max().unwrap_or(0)
    }

    fn each(&self) -> impl Iterator<Item = &Piece> {
        self.all.iter().chain(&self.bordered)
    }
}

/// A view on a rectangle of its places.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// The places that are compared.
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// By how many rows and columns further on each such view has the place of a component.
    pub(super) shifts: Vec<(usize, usize)>,
    /// Its first row and column in the whole images with their border, if it is a part of them.
    pub(super) part_at: Option<(usize, usize)>,
    /// Where the pixels of the rectangle and its border come from, unless it is such a part.
    runs: Vec<Run>,
    /// How many have no pixel.
    blank: usize,
    /// Whether any of these lies inside the image.
    pub(super) has_holes: bool,
    /// Rows and columns of its border.
    pub(super) border: usize,
}

/// Places one after the other, whose pixels of the image are `step` apart.
#[derive(Debug, Clone, Copy)]
struct Run {
    to: u32,
    from: u32,
    count: u32,
    step: i32,
}

impl Piece {
    /// Rows and columns of its pixels.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.rows.len() + 2 * self.border, self.columns.len() + 2 * self.border)
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.runs.len() * size_of::<Run>() + self.shifts.len() * size_of::<(usize, usize)>()
    }

    /// Copies a channel of an image, or of sixteen; `blank` stands where there is no pixel.
    pub(super) fn copy<L: Copy>(&self, from: &[L], to: &mut [L], blank: L) {
        if self.blank > 0 {
            to.fill(blank);
        }
        for &Run { to: place, from: first, count, step } in &self.runs {
            let (places, first) = (&mut to[place as usize..][..count as usize], first as usize);
            if step == 1 {
                places.copy_from_slice(&from[first..][..places.len()]);
            } else {
                for (i, place) in (0..).zip(places) {
                    *place = from[first.wrapping_add_signed(i * step as isize)];
                }
            }
        }
    }

    /// The piece of a view on a rectangle of images of a size.
    fn new(
        view: &View,
        surround: Surround,
        (rows, columns): (Range<usize>, Range<usize>),
        border: usize,
        size: (usize, usize),
    ) -> Self {
        let mut piece = Self { rows, columns, shifts: vec![(0, 0)], border, ..Self::default() };
        let (rows, columns) = piece.size();
        let pixel = |(i, j)| {
            let place = surround.place((piece.rows.start + i, piece.columns.start + j), border, size);
            place.map(|place| view.from()[place])
        };
        let pixels: Vec<Option<u32>> = ndarray::indices((rows, columns)).into_iter().map(pixel).collect();
        piece.has_holes = pixels.contains(&Some(View::NONE));
        let pixels: Vec<Option<u32>> = pixels.into_iter().map(|pixel| pixel.filter(|&p| p != View::NONE)).collect();
        piece.part_at = surround.part_at(&pixels, columns, size).filter(|_| border == surround.reach);
        if piece.part_at.is_none() {
            piece.take(&pixels);
        }
        piece
    }

    /// The whole images with their border.
    fn bordered(surround: Surround, (height, width): (usize, usize)) -> Self {
        let mut piece = Self { rows: 0..height, columns: 0..width, border: surround.reach, ..Self::default() };
        let (rows, columns) = piece.size();
        let places = ndarray::indices((rows, columns)).into_iter();
        let pixel = |at| surround.place(at, surround.reach, (height, width)).map(|place| place as u32);
        piece.take(&places.map(pixel).collect::<Vec<_>>());
        piece
    }

    /// Where the pixels come from, if they have one.
    fn take(&mut self, pixels: &[Option<u32>]) {
        for (to, pixel) in pixels.iter().enumerate() {
            match *pixel {
                Some(pixel) => self.append(to as u32, pixel),
                None => self.blank += 1,
            }
        }
    }

    /// Adds the next place that has a pixel.
    fn append(&mut self, to: u32, from: u32) {
        if let Some(last) = self.runs.last_mut().filter(|last| last.to + last.count == to) {
            let step = i64::from(from) - i64::from(last.from);
            if last.count == 1 {
                last.step = step as i32;
            }
            if step == i64::from(last.count) * i64::from(last.step) {
                last.count += 1;
                return;
            }
        }
        self.runs.push(Run { to, from, count: 1, step: 1 });
    }
}

/// A view whose shifts share its pieces.
struct Base<'a> {
    view: &'a View,
    /// The place of every pixel, if it has one.
    places: Vec<Option<usize>>,
    /// Which of the pieces are its.
    pieces: Range<usize>,
}

/// The pieces of all views, see [`Pieces::new`].
fn pieces_of(filter: &Filter, surround: Surround) -> Option<Vec<Piece>> {
    let [_, height, width] = filter.shape();
    let (mut pieces, mut bases): (Vec<Piece>, Vec<Base<'_>>) = (Vec::new(), Vec::new());
    for view in filter.all_views() {
        if surround.wraps && bases.iter().any(|base| base.takes(view, (height, width), &mut pieces)) {
            continue;
        }
        let start = pieces.len();
        let [rows, columns] = seen(view, (0, 0), height, width)?;
        for rows in &rows {
            for columns in &columns {
                let is_bare = surround.adds_border && rows.len() == height && columns.len() == width;
                let border = if is_bare { 0 } else { surround.reach };
                let rectangle = (rows.clone(), columns.clone());
                pieces.push(Piece::new(view, surround, rectangle, border, (height, width)));
            }
        }
        let mut places = vec![None; height * width];
        for (place, &pixel) in view.from().iter().enumerate().filter(|(_, pixel)| **pixel != View::NONE) {
            places[pixel as usize] = Some(place);
        }
        bases.push(Base { view, places, pieces: start..pieces.len() });
    }
    Some(pieces)
}

impl Base<'_> {
    /// Takes a view that is this one shifted around, if its components see just the places of the pieces.
    fn takes(&self, view: &View, (height, width): (usize, usize), pieces: &mut [Piece]) -> bool {
        let Some(place) = self.places.get(view.from()[0] as usize).copied().flatten() else { return false };
        let by = (place / width, place % width);
        let shifted = |p: usize| (p / width + by.0) % height * width + (p % width + by.1) % width;
        if !view.from().iter().enumerate().all(|(p, &pixel)| pixel == self.view.from()[shifted(p)]) {
            return false;
        }
        let own = &mut pieces[self.pieces.clone()];
        let Some([rows, columns]) = seen(view, by, height, width) else { return false };
        let places = rows.iter().flat_map(|rows| columns.iter().map(move |columns| (rows, columns)));
        if !own.iter().map(|piece| (&piece.rows, &piece.columns)).eq(places) {
            return false;
        }
        for piece in own {
            piece.shifts.push(by);
        }
        true
    }
}

/// The rows and columns of the places that components see, so many rows and columns further on, as ranges; `None` if they are not
/// all pairs of such.
fn seen(view: &View, by: (usize, usize), height: usize, width: usize) -> Option<[Vec<Range<usize>>; 2]> {
    if view.is_seen_by_all() {
        return Some([height, width].map(|len| ranges_of(&vec![true; len])));
    }
    let is_seen =
        |y: usize, x: usize| view.is_seen_by((y + height - by.0) % height * width + (x + width - by.1) % width);
    let rows: Vec<bool> = (0..height).map(|y| (0..width).any(|x| is_seen(y, x))).collect();
    let columns: Vec<bool> = (0..width).map(|x| (0..height).any(|y| is_seen(y, x))).collect();
    let is_product = (0..height).all(|y| (0..width).all(|x| is_seen(y, x) == (rows[y] && columns[x])));
    is_product.then(|| [ranges_of(&rows), ranges_of(&columns)])
}

/// The ranges in which all are true.
fn ranges_of(marks: &[bool]) -> Vec<Range<usize>> {
    let chunks = marks.chunk_by(|a, b| a == b);
    let ends = chunks.scan(0, |end, chunk| {
        *end += chunk.len();
        Some((*end - chunk.len()..*end, chunk[0]))
    });
    ends.filter(|(_, is_seen)| *is_seen).map(|(range, _)| range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Weights;

    const SHAPE: [usize; 3] = [1, 3, 4];

    fn filter(views: Vec<(Vec<u32>, Option<Vec<bool>>)>) -> Filter {
        let boxes = Weights::Boxes { side: 3, wraps: false };
        Filter::new(SHAPE, [boxes, Weights::Places], [false; 2], views).unwrap()
    }

    /// The pixels of a piece: its own, or those of the whole images with their border.
    fn pixels_of(pieces: &Pieces, piece: &Piece, image: &[usize]) -> Vec<usize> {
        let copy = |piece: &Piece| {
            let (rows, columns) = piece.size();
            let mut found = vec![0; rows * columns];
            piece.copy(image, &mut found, 7);
            found
        };
        let Some((top, left)) = piece.part_at else { return copy(piece) };
        let bordered = pieces.bordered.as_ref().unwrap();
        let (whole, (rows, columns)) = (copy(bordered), piece.size());
        let of_row = |i: usize| &whole[(top + i) * bordered.size().1 + left..][..columns];
        (0..rows).flat_map(of_row).copied().collect()
    }

    #[test]
    fn pieces_hold_the_pixels_of_their_views() {
        let identity: Vec<u32> = (0..12).collect();
        let flipped: Vec<u32> = (0..12).map(|p| p / 4 * 4 + 3 - p % 4).collect();
        let image: Vec<usize> = (100..112).collect();
        for (wraps, from) in [(false, &identity), (false, &flipped), (true, &identity), (true, &flipped)] {
            let filter = filter(vec![(from.clone(), None)]);
            let pieces = Pieces::new(&filter, Surround { reach: 1, wraps, adds_border: false }).unwrap();
            let [piece] = pieces.all.as_slice() else { panic!("one piece") };
            assert_eq!((piece.size(), piece.rows.clone(), piece.has_holes), ((5, 6), 0..3, false));
            assert_eq!(piece.part_at.is_some(), !wraps && from == &identity);
            let found = pixels_of(&pieces, piece, &image);
            for (y, x) in ndarray::indices((5, 6)) {
                let inside = (1..4).contains(&y) && (1..5).contains(&x);
                let pixel = ((y + 2) % 3) * 4 + (x + 3) % 4;
                let expected = if inside || wraps { image[from[pixel] as usize] } else { 7 };
                assert_eq!(found[y * 6 + x], expected, "{y}, {x}");
            }
        }
    }

    #[test]
    fn pieces_of_shifted_images_are_parts_of_the_whole() {
        // 3 x 4 pixels: squares of side 3 that lie inside are around two of them, each of which sees either.
        let image: Vec<usize> = (100..112).collect();
        let views = [-1, 0, 1].map(|by| {
            let from = |p: i32| if (0..4).contains(&(p % 4 + by)) { (p + by) as u32 } else { View::NONE };
            let is_seen = |p: i32| p / 4 == 1 && (1..3).contains(&(p % 4)) && (1..3).contains(&(p % 4 + by));
            ((0..12).map(from).collect(), Some((0..12).map(is_seen).collect()))
        });
        let pieces =
            Pieces::new(&filter(views.into()), Surround { reach: 1, wraps: false, adds_border: true }).unwrap();
        for (piece, (columns, left)) in pieces.all.iter().zip([(2..3, 1), (1..3, 1), (1..2, 2)]) {
            assert_eq!((piece.rows.clone(), piece.columns.clone(), piece.part_at), (1..2, columns, Some((1, left))));
            let (found, width) = (pixels_of(&pieces, piece, &image), piece.columns.len() + 2);
            for (at, &pixel) in found.iter().enumerate() {
                assert_eq!(pixel, 100 + at / width * 4 + at % width + left - 1);
            }
        }
    }

    #[test]
    fn views_that_are_shifted_around_share_a_piece() {
        let shifted = |dy: usize, dx: usize, base: &dyn Fn(usize) -> usize| -> Vec<u32> {
            (0..12).map(|p| base((p / 4 + dy) % 3 * 4 + (p % 4 + dx) % 4) as u32).collect()
        };
        let flip = |p: usize| p / 4 * 4 + 3 - p % 4;
        let views = vec![
            (shifted(0, 0, &|p| p), None),
            (shifted(0, 0, &flip), None),
            (shifted(2, 3, &|p| p), None),
            (shifted(1, 2, &flip), None),
        ];
        let surround = |wraps| Surround { reach: 1, wraps, adds_border: true };
        let pieces = pieces_of(&filter(views.clone()), surround(true)).unwrap();
        assert_eq!(
            pieces.iter().map(|piece| piece.shifts.clone()).collect::<Vec<_>>(),
            [[(0, 0), (2, 3)], [(0, 0), (1, 2)]]
        );
        assert!(pieces.iter().all(|piece| piece.size() == (3, 4)));
        assert_eq!(pieces_of(&filter(views), surround(false)).unwrap().len(), 4);
        // Places inside the image, wherever components find them.
        let inside = |dy: usize, dx: usize| -> Vec<bool> {
            (0..12).map(|p| (p / 4 + dy) % 3 == 1 && (1..3).contains(&((p % 4 + dx) % 4))).collect()
        };
        let all = (shifted(0, 0, &|p| p), None);
        let seen = [(0, 0), (1, 3)].map(|(dy, dx)| (shifted(dy, dx, &|p| p), Some(inside(dy, dx))));
        let pieces = pieces_of(&filter(seen.into_iter().chain([all]).collect()), surround(true)).unwrap();
        let found: Vec<_> =
            pieces.iter().map(|piece| (piece.rows.clone(), piece.columns.clone(), piece.shifts.len())).collect();
        assert_eq!(found, [(1..2, 1..3, 2), (0..3, 0..4, 1)]);
    }

    #[test]
    fn what_components_see_is_cut_into_rectangles() {
        let identity: Vec<u32> = (0..12).collect();
        let apart: Vec<bool> = (0..12).map(|p| p / 4 != 1 && p % 4 != 2).collect();
        let pieces = pieces_of(
            &filter(vec![(identity.clone(), Some(apart))]),
            Surround { reach: 1, wraps: false, adds_border: false },
        );
        let found: Vec<_> = pieces.unwrap().iter().map(|piece| (piece.rows.clone(), piece.columns.clone())).collect();
        assert_eq!(found, [(0..1, 0..2), (0..1, 3..4), (2..3, 0..2), (2..3, 3..4)]);
        let diagonal: Vec<bool> = (0..12).map(|p| p / 4 == p % 4).collect();
        let views = vec![(identity.clone(), None), (identity.clone(), Some(diagonal))];
        assert!(pieces_of(&filter(views), Surround { reach: 1, wraps: false, adds_border: false }).is_none());
        let mut hole = identity;
        hole[5] = View::NONE;
        let views = vec![(hole, None), ((0..12).collect(), None)];
        let pieces = pieces_of(&filter(views), Surround { reach: 0, wraps: false, adds_border: false }).unwrap();
        assert_eq!(pieces.iter().map(|piece| piece.has_holes).collect::<Vec<_>>(), [true, false]);
    }
}
