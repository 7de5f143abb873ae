//! `Filter`: components whose distances and answers weigh pixels differently, and the views in which they see the images.

use std::sync::Arc;

use crate::error::{Error, Result};

/// A linear map from the values of an image to components: a weight of every value for every component, none negative.
#[derive(Debug, Clone)]
pub enum Weights {
    /// A square of an odd side around every pixel, which goes on at the opposite border or is cut there.
    Boxes {
        /// The side.
        side: usize,
        /// Whether it goes on at the opposite border.
        wraps: bool,
    },
    /// Around every pixel the products `taps[|dy|] taps[|dx|]`, cut at the border.
    Taps(Vec<f64>),
    /// Every value alone.
    Places,
    /// A row of weights for every component.
    Rows(Rows),
}

/// Rows of weights, of which most may be zero.
#[derive(Debug, Clone)]
pub struct Rows {
    /// By component: places and weights from `starts[k]` to `starts[k + 1]`.
    pub(crate) by_component: Lists,
    /// By place: components and weights.
    pub(crate) by_place: Lists,
}

/// Lists of indices with weights, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Lists {
    starts: Vec<usize>,
    entries: Vec<(u32, f64)>,
}

impl Lists {
    fn new(count: usize, entries: impl Iterator<Item = (usize, u32, f64)> + Clone) -> Self {
        let mut starts = vec![0; count + 1];
        entries.clone().for_each(|(list, ..)| starts[list + 1] += 1);
        (0..count).for_each(|list| starts[list + 1] += starts[list]);
        let mut next = starts.clone();
        let mut sorted = vec![(0, 0.0); starts[count]];
        for (list, index, weight) in entries {
            sorted[next[list]] = (index, weight);
            next[list] += 1;
        }
        Self { starts, entries: sorted }
    }

    /// The entries of a list.
    #[inline(always)]
    pub(crate) fn of(&self, list: usize) -> &[(u32, f64)] {
        &self.entries[self.starts[list]..self.starts[list + 1]]
    }

    /// How many lists there are.
    pub(crate) fn count(&self) -> usize {
        self.starts.len() - 1
    }
}

impl Rows {
    /// Rows of `len` weights, one after the other; zeros cost nothing.
    ///
    /// Errors: a weight that is negative or not finite, or a length that is not a multiple of `len`.
    pub fn new(len: usize, weights: &[f64]) -> Result<Self> {
        if len == 0 || weights.is_empty() || !weights.len().is_multiple_of(len) {
            let expected = format!("[rows, {len}]");
            return Err(Error::Shape { what: "rows", found: vec![weights.len()], expected });
        }
        if let Some(at) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            let (value, index) = (weights[at], vec![at / len, at % len]);
            return Err(Error::Weight { value, index });
        }
        let entries = || weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        let by_component = entries().map(|(at, &weight)| (at / len, (at % len) as u32, weight));
        let by_place = entries().map(|(at, &weight)| (at % len, (at / len) as u32, weight));
        let count = weights.len() / len;
        Ok(Self { by_component: Lists::new(count, by_component), by_place: Lists::new(len, by_place) })
    }
}

/// Weights, and whether they are of pixels, the same for all channels, or of every value by itself.
#[derive(Debug, Clone)]
pub struct Operator {
    pub(crate) weights: Weights,
    pub(crate) per_value: bool,
}

/// How a component sees an image: which of its pixels lies at every pixel, if any does; elsewhere is `0`.
#[derive(Debug, Clone)]
pub struct View {
    /// Per pixel that of the image, or [`View::NONE`].
    from: Vec<u32>,
    /// Which components see this view; `None` if all do.
    seen_by: Option<Vec<bool>>,
    is_identity: bool,
}

impl View {
    /// No pixel of the image.
    pub const NONE: u32 = u32::MAX;

    fn new(from: Vec<u32>, seen_by: Option<Vec<bool>>) -> Self {
        let is_identity = from.iter().enumerate().all(|(pixel, &from)| pixel == from as usize);
        Self { from, seen_by, is_identity }
    }

    /// Whether every pixel lies at its own place.
    #[inline(always)]
    pub(crate) fn is_identity(&self) -> bool {
        self.is_identity
    }

    /// Per pixel that of the image.
    pub(crate) fn from(&self) -> &[u32] {
        &self.from
    }

    /// Whether a component sees this view.
    #[inline(always)]
    pub(crate) fn is_seen_by(&self, k: usize) -> bool {
        self.seen_by.as_ref().is_none_or(|seen| seen[k])
    }

    /// Whether every component sees this view.
    pub(crate) fn is_seen_by_all(&self) -> bool {
        self.seen_by.is_none()
    }
}

/// Components with a query precision and response weights, over views of the images. A clone is the same filter.
#[derive(Debug, Clone)]
pub struct Filter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shape: [usize; 3],
    precision: Operator,
    response: Operator,
    views: Vec<View>,
    count: usize,
    cover: Vec<f64>,
}

impl Filter {
    /// Of images `[channels, height, width]`. `per_value` says of precision and response whether their weights are of values
    /// `[channel, row, column]` instead of pixels. `views` are pairs of [`View`]'s fields.
    ///
    /// Errors: boxes without a middle or beyond the image, taps that are none, rows of another length, different numbers of components, a view of another size, a value that no response
    /// covers, or no view.
    pub fn new(
        shape: [usize; 3],
        [precision, response]: [Weights; 2],
        per_value: [bool; 2],
        views: Vec<(Vec<u32>, Option<Vec<bool>>)>,
    ) -> Result<Self> {
        let plane = shape[1] * shape[2];
        let operator = |weights, per_value| Operator { weights, per_value };
        let [precision, response] = [operator(precision, per_value[0]), operator(response, per_value[1])];
        let count = precision.count(shape);
        for operator in [&precision, &response] {
            operator.check(shape)?;
            if operator.count(shape) != count || operator.lists_len().is_some_and(|len| len != operator.len(shape)) {
                let found = vec![operator.count(shape), operator.lists_len().unwrap_or_default()];
                let expected = format!("[{count}, {}]", operator.len(shape));
                return Err(Error::Shape { what: "rows", found, expected });
            }
        }
        let is_wrong = |(from, seen_by): &(Vec<u32>, Option<Vec<bool>>)| {
            from.len() != plane
                || from.iter().any(|&p| p != View::NONE && p as usize >= plane)
                || seen_by.as_ref().is_some_and(|seen| seen.len() != count)
        };
        if views.is_empty() || views.iter().any(is_wrong) {
            return Err(Error::Shape {
                what: "views",
                found: vec![views.len()],
                expected: format!("[views, {plane}]"),
            });
        }
        let views = views.into_iter().map(|(from, seen_by)| View::new(from, seen_by)).collect();
        let cover = response.cover(shape);
        let uncovered = || cover.iter().enumerate().filter(|(_, sum)| **sum <= 0.0);
        if let Some((first, _)) = uncovered().next() {
            let (count, p) = (uncovered().count(), first % plane);
            return Err(Error::Uncovered { count, y: p / shape[2], x: p % shape[2] });
        }
        Ok(Self(Arc::new(Inner { shape, precision, response, views, count, cover })))
    }

    /// `[channels, height, width]` of the images.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.0.shape
    }

    /// Number of components.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// Number of views.
    #[must_use]
    pub fn views(&self) -> usize {
        self.0.views.len()
    }

    pub(crate) fn all_views(&self) -> &[View] {
        &self.0.views
    }

    pub(crate) fn precision(&self) -> &Operator {
        &self.0.precision
    }

    pub(crate) fn response(&self) -> &Operator {
        &self.0.response
    }

    /// The sum of the response weights at every value, `[channel][row][column]`.
    pub(crate) fn cover(&self) -> &[f64] {
        &self.0.cover
    }

    /// Adds to `values` `[channel][row][column]`, weighed as components answer, the shares of the centre that those have whose
    /// base-2 logarithms are given.
    pub(crate) fn add_centre(&self, centre: f64, log2_shares: &[f64], values: &mut [f64]) {
        if centre == 0.0 {
            return;
        }
        let mut sums = vec![0.0; self.response().len(self.shape())];
        for (k, log) in log2_shares.iter().enumerate() {
            let share = log.exp2();
            self.response().for_each_weight(k, self.shape(), |place, weight| sums[place] += weight * share);
        }
        for ((value, sum), cover) in values.iter_mut().zip(sums.iter().cycle()).zip(self.cover()) {
            *value += centre * sum / cover;
        }
    }

    /// The value that a component answers for: its own pixel or value, or that of the largest response, the first of
    /// several; of a pixel, that in the first channel.
    pub(crate) fn middle(&self, k: usize) -> usize {
        match &self.0.response.weights {
            Weights::Boxes { .. } | Weights::Taps(_) | Weights::Places => k,
            Weights::Rows(rows) => {
                let best = |best: (u32, f64), &(place, weight): &(u32, f64)| {
                    if weight > best.1 { (place, weight) } else { best }
                };
                rows.by_component.of(k).iter().fold((0, 0.0), best).0 as usize
            }
        }
    }
}

impl Operator {
    /// Refuses boxes that have no middle or are larger than all that a pixel can see, and taps that are none; both are of
    /// pixels.
    fn check(&self, [_, height, width]: [usize; 3]) -> Result<()> {
        match &self.weights {
            Weights::Boxes { side, wraps } => {
                let largest = if *wraps { height.min(width) } else { 2 * height.max(width) - 1 };
                if self.per_value || side.is_multiple_of(2) || *side > largest {
                    return Err(Error::WindowSide { side: *side, largest, height, width });
                }
            }
            Weights::Taps(taps) => {
                let wrong = taps.iter().position(|tap| !(tap.is_finite() && *tap >= 0.0));
                if self.per_value || taps.is_empty() || wrong.is_some() {
                    let value = wrong.map_or(f64::NAN, |at| taps[at]);
                    return Err(Error::Weight { value, index: vec![wrong.unwrap_or_default()] });
                }
            }
            Weights::Places | Weights::Rows(_) => {}
        }
        Ok(())
    }

    /// Number of values that it maps.
    pub(crate) fn len(&self, [channels, height, width]: [usize; 3]) -> usize {
        if self.per_value { channels * height * width } else { height * width }
    }

    /// Number of components that it maps to.
    fn count(&self, shape: [usize; 3]) -> usize {
        match &self.weights {
            Weights::Boxes { .. } | Weights::Taps(_) | Weights::Places => self.len(shape),
            Weights::Rows(rows) => rows.by_component.count(),
        }
    }

    fn lists_len(&self) -> Option<usize> {
        match &self.weights {
            Weights::Boxes { .. } | Weights::Taps(_) | Weights::Places => None,
            Weights::Rows(rows) => Some(rows.by_place.count()),
        }
    }

    /// Calls `visit(place, weight)` for every value that counts for component `k`.
    #[allow(clippy::cast_possible_wrap, reason = "images have at most 2^24 pixels")]
    pub(crate) fn for_each_weight(&self, k: usize, [_, height, width]: [usize; 3], mut visit: impl FnMut(usize, f64)) {
        let around =
            |reach: usize, wraps: bool, weight: &dyn Fn(usize, usize) -> f64, visit: &mut dyn FnMut(usize, f64)| {
                let (y, x) = ((k / width) as isize, (k % width) as isize);
                let reach = reach as isize;
                for dy in -reach..=reach {
                    for dx in -reach..=reach {
                        let (mut at_y, mut at_x) = (y + dy, x + dx);
                        if wraps {
                            (at_y, at_x) = (at_y.rem_euclid(height as isize), at_x.rem_euclid(width as isize));
                        }
                        if (0..height as isize).contains(&at_y) && (0..width as isize).contains(&at_x) {
                            visit(at_y as usize * width + at_x as usize, weight(dy.unsigned_abs(), dx.unsigned_abs()));
                        }
                    }
                }
            };
        match &self.weights {
            Weights::Boxes { side, wraps } => around(side / 2, *wraps, &|_, _| 1.0, &mut visit),
            Weights::Taps(taps) => around(taps.len() - 1, false, &|dy, dx| taps[dy] * taps[dx], &mut visit),
            Weights::Places => visit(k, 1.0),
            Weights::Rows(rows) => {
                rows.by_component.of(k).iter().for_each(|&(place, weight)| visit(place as usize, weight));
            }
        }
    }

    /// The sum of its weights at every value of an image.
    fn cover(&self, shape: [usize; 3]) -> Vec<f64> {
        let [_, height, width] = shape;
        let outer = |weight: &dyn Fn(usize) -> f64, wraps: bool, reach: usize| -> Vec<f64> {
            let line = |len: usize| line_cover(len, reach, wraps, weight);
            let (down, across) = (line(height), line(width));
            down.iter().flat_map(|d| across.iter().map(move |a| d * a)).collect()
        };
        let cover = match &self.weights {
            Weights::Boxes { side, wraps } => outer(&|_| 1.0, *wraps, side / 2),
            Weights::Taps(taps) => outer(&|apart| taps[apart], false, taps.len() - 1),
            Weights::Places => vec![1.0; self.len(shape)],
            Weights::Rows(rows) => {
                let sum = |place| rows.by_place.of(place).iter().map(|(_, weight)| weight).sum();
                (0..self.len(shape)).map(sum).collect()
            }
        };
        if self.per_value { cover } else { cover.repeat(shape[0]) }
    }
}

/// The sum, at every place of a line, of the weights of all places within `reach`.
fn line_cover(len: usize, reach: usize, wraps: bool, weight: &dyn Fn(usize) -> f64) -> Vec<f64> {
    let weight_of = |at: usize, place: usize| {
        let apart = at.abs_diff(place);
        let apart = if wraps { apart.min(len - apart) } else { apart };
        if apart <= reach { weight(apart) } else { 0.0 }
    };
    (0..len).map(|place| (0..len).map(|at| weight_of(at, place)).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(plane: usize) -> Vec<(Vec<u32>, Option<Vec<bool>>)> {
        vec![((0..plane as u32).collect(), None)]
    }

    #[test]
    fn rows_are_kept_both_ways() {
        let rows = Rows::new(3, &[0.0, 2.0, 1.0, 0.5, 0.0, 0.0]).unwrap();
        assert_eq!(rows.by_component.of(0), [(1, 2.0), (2, 1.0)]);
        assert_eq!(rows.by_place.of(0), [(1, 0.5)]);
        assert!(matches!(Rows::new(3, &[0.0, -1.0, 0.0]), Err(Error::Weight { .. })));
        assert!(matches!(Rows::new(3, &[0.0, 1.0]), Err(Error::Shape { .. })));
    }

    #[test]
    fn boxes_are_cut_or_go_on_at_the_border() {
        let shape = [2, 3, 4];
        let boxes = |wraps| Operator { weights: Weights::Boxes { side: 3, wraps }, per_value: false };
        let pixels = |operator: Operator, k| {
            let mut pixels = Vec::new();
            operator.for_each_weight(k, shape, |p, weight| pixels.push((p, weight)));
            pixels.len()
        };
        assert_eq!((pixels(boxes(false), 0), pixels(boxes(true), 0), pixels(boxes(false), 5)), (4, 9, 9));
        assert_eq!(boxes(true).cover(shape), [9.0; 24]);
        let taps = Operator { weights: Weights::Taps(vec![1.0, 0.5, 0.25]), per_value: false };
        for operator in [boxes(false), boxes(true), taps] {
            let mut cover = [0.0; 12];
            (0..12).for_each(|k| operator.for_each_weight(k, shape, |p, weight| cover[p] += weight));
            assert!(operator.cover(shape).iter().zip(cover.iter().cycle()).all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let shape = [1, 2, 2];
        let rows = |weights: &[f64]| Weights::Rows(Rows::new(4, weights).unwrap());
        let filter = |precision, response| Filter::new(shape, [precision, response], [false; 2], identity(4));
        assert!(filter(rows(&[1.0; 4]), rows(&[1.0; 4])).is_ok());
        assert!(matches!(filter(rows(&[1.0; 4]), Weights::Places), Err(Error::Shape { .. })));
        assert!(matches!(filter(rows(&[1.0; 4]), rows(&[1.0, 0.0, 1.0, 1.0])), Err(Error::Uncovered { count: 1, .. })));
        assert!(Filter::new(shape, [Weights::Places, Weights::Places], [false; 2], identity(5)).is_err());
        let boxed = |side, wraps| filter(Weights::Boxes { side, wraps }, Weights::Places);
        assert!(boxed(3, false).is_ok() && boxed(1, true).is_ok());
        assert!(
            [(0, false), (2, false), (5, false), (3, true)].iter().all(|&(side, wraps)| boxed(side, wraps).is_err())
        );
        assert!(filter(Weights::Taps(vec![1.0, -0.5]), Weights::Places).is_err());
        assert!(filter(Weights::Taps(Vec::new()), Weights::Places).is_err());
    }
}
