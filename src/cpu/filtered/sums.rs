//! `Sums`: how weights are applied to planes of sixteen images in float32, and their adjoint.

use crate::cpu::chunks::exact_chunks;
use crate::filter::{Lists, Operator, Weights};
use crate::simd::{F32x16, Kernel, Vector};

/// Numbers after which one place stays free. Where rows of images are a power of two long, those of a neighbourhood would
/// otherwise fall into a few sets of the first-level cache, which do not hold them all.
const SPREAD: usize = 32;

/// The place of a number in a plane in which such places are free.
#[inline(always)]
pub(super) fn spread(value: usize) -> usize {
    value + value / SPREAD
}

/// Columns whose sums are formed side by side.
const COLUMNS: usize = 8;

/// A linear map from the values of an image to components, or its adjoint from components to values.
#[derive(Debug)]
pub(super) enum Sums {
    /// Around every pixel of images so wide the products `taps[|dy|] taps[|dx|]`, cut at the border.
    Taps { taps: Vec<f32>, width: usize },
    /// Every value alone.
    Places,
    /// For every component which values count, and their weights; or the other way round.
    Rows(List),
}

/// Lists of indices with weights, a few of which share what they read.
#[derive(Debug)]
pub(super) enum List {
    /// All weights are one.
    Plain(PlainList),
    /// Weights of any kind.
    Weighted(WeightedList),
}

/// Lists whose weights are one, in pairs.
#[derive(Debug)]
pub(super) struct PlainList {
    /// Of every pair the indices of the first alone, of the second alone, and of both.
    indices: Vec<u32>,
    /// Where these end.
    ends: Vec<[u32; 3]>,
    longest: usize,
}

/// Lists in groups.
#[derive(Debug)]
pub(super) struct WeightedList {
    /// The indices of every group, each once.
    indices: Vec<u32>,
    /// Their weights on every list of the group.
    weights: Vec<[f32; SIDE_BY_SIDE]>,
    /// Where groups end.
    ends: Vec<usize>,
    longest: usize,
}

/// Weights of this share of a list's sum are left out: their products would be subnormal, with which processors are slow. Less of a
/// response changes no answer by more than 1e-9 of the reach of the data, with thousands of components; less of a precision
/// no logit that float32 serves, even if the pixel is an outlier of a thousand million times the others.
const LEAST_RESPONSE: f64 = 1e-12;
const LEAST_PRECISION: f64 = 1e-30;

/// Lists of a group.
const SIDE_BY_SIDE: usize = 4;

impl Sums {
    /// `None` where weights go on at the opposite border.
    pub(super) fn new(operator: &Operator, width: usize, is_adjoint: bool) -> Option<Self> {
        Some(match &operator.weights {
            Weights::Boxes { wraps: true, .. } => return None,
            Weights::Boxes { side, wraps: false } => Self::Taps { taps: vec![1.0; side / 2 + 1], width },
            Weights::Taps(taps) => Self::Taps { taps: taps.iter().map(|&tap| tap as f32).collect(), width },
            Weights::Places => Self::Places,
            Weights::Rows(rows) if is_adjoint => Self::Rows(List::new(&rows.by_place, LEAST_RESPONSE)),
            Weights::Rows(rows) => Self::Rows(List::new(&rows.by_component, LEAST_PRECISION)),
        })
    }

    /// Where a number lies in a plane of them that [`Apply`] takes.
    #[inline(always)]
    pub(super) fn place(&self, number: usize) -> usize {
        if self.is_spread() { spread(number) } else { self.first() + number }
    }

    /// Numbers before the first one, and after the last, all zero: the rows that taps reach beyond the border.
    fn first(&self) -> usize {
        match self {
            Self::Taps { taps, width } => (taps.len() - 1) * width,
            _ => 0,
        }
    }

    /// Whether numbers lie elsewhere than one after the other.
    #[inline(always)]
    pub(super) fn is_spread(&self) -> bool {
        matches!(self, Self::Rows(_))
    }

    /// The length of a plane of so many numbers.
    pub(super) fn plane_len(&self, numbers: usize) -> usize {
        self.place(numbers) + self.first()
    }

    /// The most additions, one after the other, that a value passes through.
    pub(super) fn chain(&self) -> usize {
        match self {
            Self::Taps { taps, .. } => 2 * taps.len(),
            Self::Places => 0,
            Self::Rows(list) => list.chain(),
        }
    }

    /// The most values that count for a component of images `width` wide and `height` high.
    pub(super) fn values(&self, [height, width]: [usize; 2]) -> usize {
        match self {
            Self::Taps { taps, .. } => height.min(2 * taps.len() - 1) * width.min(2 * taps.len() - 1),
            Self::Places => 1,
            Self::Rows(list) => list.longest(),
        }
    }
}

impl List {
    /// Of all weights but those that are less than a share of their list's sum.
    fn new(lists: &Lists, least: f64) -> Self {
        let longest = (0..lists.count()).map(|list| lists.of(list).len()).max().unwrap_or(0);
        #[allow(clippy::float_cmp, reason = "ones are ones exactly")]
        let is_one = |&(_, weight): &(u32, f64)| weight == 1.0;
        if (0..lists.count()).all(|list| lists.of(list).iter().all(is_one)) {
            Self::Plain(PlainList::new(lists, least, longest))
        } else {
            Self::Weighted(WeightedList::new(lists, least, longest))
        }
    }

    /// The most additions, one after the other, that a value passes through.
    fn chain(&self) -> usize {
        match self {
            Self::Plain(list) => TERMS + PARTS + list.longest.div_ceil(PARTS * TERMS),
            Self::Weighted(list) => TERMS + list.longest.div_ceil(TERMS),
        }
    }

    fn longest(&self) -> usize {
        match self {
            Self::Plain(list) => list.longest,
            Self::Weighted(list) => list.longest,
        }
    }
}

/// The indices of a few lists from `first` on, each once and in increasing order, as the lists are, with its weights on them.
fn union<const N: usize>(lists: &Lists, first: usize, least: f64) -> Vec<(u32, [f32; N])> {
    let mut rest: [&[(u32, f64)]; N] =
        std::array::from_fn(|i| if first + i < lists.count() { lists.of(first + i) } else { &[] });
    let least = rest.map(|list| least * list.iter().map(|(_, weight)| weight).sum::<f64>());
    let mut union = Vec::new();
    while let Some(next) = rest.iter().filter_map(|list| list.first()).map(|&(index, _)| index).min() {
        let mut weights = [0.0; N];
        for ((list, weight), least) in rest.iter_mut().zip(&mut weights).zip(least) {
            if let Some((&(_, own), later)) = list.split_first().filter(|((index, _), _)| *index == next) {
                (*weight, *list) = (if own < least { 0.0 } else { own as f32 }, later);
            }
        }
        if weights.iter().any(|&weight| weight > 0.0) {
            union.push((next, weights));
        }
    }
    union
}

impl PlainList {
    fn new(lists: &Lists, least: f64, longest: usize) -> Self {
        let mut all = Self { indices: Vec::new(), ends: Vec::new(), longest };
        for first in (0..lists.count()).step_by(2) {
            let pair = union::<2>(lists, first, least);
            let mut add = |of: [bool; 2]| {
                let same = pair.iter().filter(|(_, weights)| weights.map(|weight| weight > 0.0) == of);
                all.indices.extend(same.map(|&(index, _)| spread(index as usize) as u32));
                all.indices.len() as u32
            };
            let ends = [add([true, false]), add([false, true]), add([true, true])];
            all.ends.push(ends);
        }
        all
    }
}

impl WeightedList {
    fn new(lists: &Lists, least: f64, longest: usize) -> Self {
        let mut all = Self { indices: Vec::new(), weights: Vec::new(), ends: Vec::new(), longest };
        for first in (0..lists.count()).step_by(SIDE_BY_SIDE) {
            let (indices, weights): (Vec<u32>, Vec<_>) = union::<SIDE_BY_SIDE>(lists, first, least).into_iter().unzip();
            all.indices.extend(indices.into_iter().map(|index| spread(index as usize) as u32));
            all.weights.extend(weights);
            all.ends.push(all.indices.len());
        }
        all
    }
}

/// Writes the weighted sums of one or two tiles.
pub(super) struct Apply<'a> {
    pub(super) sums: &'a Sums,
    /// `[tile][number]`, each at its [`Sums::place`].
    pub(super) values: &'a [F32x16],
    /// `[tile][sum]`.
    pub(super) out: &'a mut [F32x16],
    pub(super) tiles: usize,
    /// Working space.
    pub(super) line: &'a mut Vec<F32x16>,
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { sums, values, out, tiles, line } = self;
        let (values_of_tile, out_of_tile) = (values.len() / tiles, out.len() / tiles);
        match sums {
            Sums::Places => out.copy_from_slice(values),
            Sums::Taps { taps, width } => {
                for (values, out) in exact_chunks(values, values_of_tile).zip(out.chunks_exact_mut(out_of_tile)) {
                    separable::<V>(taps, *width, values, out, line);
                }
            }
            Sums::Rows(list) => match (list, tiles) {
                (List::Weighted(list), 1) => weighted_sums::<V, 1>(list, values, out),
                (List::Weighted(list), _) => weighted_sums::<V, 2>(list, values, out),
                (List::Plain(list), _) => {
                    // Tile by tile, so that what neighbouring lists read stays in the first-level cache.
                    for (values, out) in exact_chunks(values, values_of_tile).zip(out.chunks_exact_mut(out_of_tile)) {
                        plain_sums::<V>(list, values, out);
                    }
                }
            },
        }
    }
}

/// Sums of a list that are formed side by side, so that one addition need not wait for the other.
const PARTS: usize = 4;

/// Terms that are added to a sum before it is added to others: long sums round more with every term.
const TERMS: usize = 16;

#[inline(always)]
fn plain_sums<V: Vector>(list: &PlainList, values: &[F32x16], out: &mut [F32x16]) {
    let mut start = 0;
    for (ends, out) in list.ends.iter().zip(out.chunks_mut(2)) {
        let mut sums = [V::splat(0.0); 3];
        for (sum, &end) in sums.iter_mut().zip(ends) {
            *sum = sum_of::<V>(&list.indices[start..end as usize], values);
            start = end as usize;
        }
        let [first, second, both] = sums;
        for (out, alone) in out.iter_mut().zip([first, second]) {
            alone.add(both).store(out);
        }
    }
}

#[inline(always)]
fn sum_of<V: Vector>(indices: &[u32], values: &[F32x16]) -> V {
    let mut total = V::splat(0.0);
    for indices in indices.chunks(PARTS * TERMS) {
        let mut parts = [V::splat(0.0); PARTS];
        let (fours, rest) = indices.as_chunks::<PARTS>();
        for four in fours {
            for i in 0..PARTS {
                parts[i] = parts[i].add(V::load(&values[four[i] as usize]));
            }
        }
        for (i, &index) in rest.iter().enumerate() {
            parts[i] = parts[i].add(V::load(&values[index as usize]));
        }
        let [a, b, c, d] = parts;
        total = total.add(a.add(b).add(c.add(d)));
    }
    total
}

#[inline(always)]
fn weighted_sums<V: Vector, const T: usize>(list: &WeightedList, values: &[F32x16], out: &mut [F32x16]) {
    let (len, count) = (values.len() / T, out.len() / T);
    let values: [&[F32x16]; T] = std::array::from_fn(|t| &values[t * len..][..len]);
    let mut start = 0;
    for (group, &end) in list.ends.iter().enumerate() {
        let mut sums = [[V::splat(0.0); SIDE_BY_SIDE]; T];
        let entries = list.indices[start..end].chunks(TERMS).zip(list.weights[start..end].chunks(TERMS));
        for (indices, weights) in entries {
            let mut parts = [[V::splat(0.0); SIDE_BY_SIDE]; T];
            for (&index, weights) in indices.iter().zip(weights) {
                let mut of_tiles = [V::splat(0.0); T];
                for t in 0..T {
                    of_tiles[t] = V::load(&values[t][index as usize]);
                }
                for i in 0..SIDE_BY_SIDE {
                    let weight = V::splat(weights[i]);
                    for t in 0..T {
                        parts[t][i] = of_tiles[t].mul_add(weight, parts[t][i]);
                    }
                }
            }
            for t in 0..T {
                for i in 0..SIDE_BY_SIDE {
                    sums[t][i] = sums[t][i].add(parts[t][i]);
                }
            }
        }
        start = end;
        let first = group * SIDE_BY_SIDE;
        for t in 0..T {
            let out = &mut out[t * count..][first..count.min(first + SIDE_BY_SIDE)];
            for i in 0..out.len() {
                sums[t][i].store(&mut out[i]);
            }
        }
    }
}

/// Sums of neighbours times taps, down and then across, row by row: the sums down, in `line` between zeros, are used while they
/// are in the first-level cache.
#[inline(always)]
fn separable<V: Vector>(taps: &[f32], width: usize, values: &[F32x16], out: &mut [F32x16], line: &mut Vec<F32x16>) {
    let reach = taps.len() - 1;
    line.clear();
    line.resize(width + 2 * reach, F32x16::ZERO);
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        convolve::<V>(taps, width, &values[y * width..][..(2 * reach + 1) * width], &mut line[reach..][..width]);
        convolve::<V>(taps, 1, line, out);
    }
}

/// At every place of `out` the middle value, `reach` steps after it in `values`, and its neighbours on both sides, times taps.
#[inline(always)]
fn convolve<V: Vector>(taps: &[f32], step: usize, values: &[F32x16], out: &mut [F32x16]) {
    let whole = out.len() - out.len() % COLUMNS;
    for x in (0..whole).step_by(COLUMNS) {
        convolve_columns::<V, COLUMNS>(taps, step, &values[x..], &mut out[x..]);
    }
    for x in whole..out.len() {
        convolve_columns::<V, 1>(taps, step, &values[x..], &mut out[x..]);
    }
}

#[inline(always)]
fn convolve_columns<V: Vector, const COUNT: usize>(taps: &[f32], step: usize, values: &[F32x16], out: &mut [F32x16]) {
    let middle = (taps.len() - 1) * step;
    let mut sums = [V::splat(0.0); COUNT];
    let own = &values[middle..][..COUNT];
    for i in 0..COUNT {
        sums[i] = V::load(&own[i]).mul(V::splat(taps[0]));
    }
    for (d, &tap) in taps.iter().enumerate().skip(1) {
        let (before, after) = (&values[middle - d * step..][..COUNT], &values[middle + d * step..][..COUNT]);
        for i in 0..COUNT {
            sums[i] = V::load(&before[i]).add(V::load(&after[i])).mul_add(V::splat(tap), sums[i]);
        }
    }
    let out = &mut out[..COUNT];
    for i in 0..COUNT {
        sums[i].store(&mut out[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Rows;
    use crate::simd::Isa;

    /// Some small integers, so that sums are exact, another one in every lane.
    fn numbers(count: usize) -> Vec<F32x16> {
        let value = |i: usize, lane: usize| ((i * 31 + lane * 17) * 7919 % 100) as f32 - 50.0;
        (0..count).map(|i| F32x16(std::array::from_fn(|lane| value(i, lane)))).collect()
    }

    #[test]
    fn every_kind_of_weights_is_its_matrix_both_ways() {
        let shape = [1, 5, 7];
        let rows = |scale: f64| -> Vec<f64> { (0..9 * 35).map(|i| if i % 3 == 0 { scale } else { 0.0 }).collect() };
        let uneven: Vec<f64> = rows(1.0).iter().enumerate().map(|(i, weight)| weight * (i % 4) as f64).collect();
        let kinds = [
            Weights::Boxes { side: 3, wraps: false },
            Weights::Taps(vec![1.0]),
            Weights::Taps(vec![4.0, 2.0, 1.0]),
            Weights::Taps(vec![9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]),
            Weights::Places,
            Weights::Rows(Rows::new(35, &rows(1.0)).unwrap()),
            Weights::Rows(Rows::new(35, &uneven).unwrap()),
        ];
        for weights in kinds {
            let operator = Operator { weights, per_value: false };
            let count = if matches!(operator.weights, Weights::Rows(_)) { 9 } else { 35 };
            let [forward, back] = [false, true].map(|is_adjoint| Sums::new(&operator, 7, is_adjoint).unwrap());
            let mut longest = 0;
            for k in 0..count {
                let mut len = 0;
                operator.for_each_weight(k, shape, |_, _| len += 1);
                longest = longest.max(len);
            }
            assert_eq!(forward.values([5, 7]), longest);
            for (isa, tiles) in Isa::available().into_iter().flat_map(|isa| [(isa, 1), (isa, 2)]) {
                let (values, components) = (numbers(35 * tiles), numbers(count * tiles));
                let apply = |sums: &Sums, from: &[F32x16], to: usize| {
                    let (len, plane_len) = (from.len() / tiles, sums.plane_len(from.len() / tiles));
                    let mut plane = vec![F32x16::ZERO; plane_len * tiles];
                    (0..from.len()).for_each(|i| plane[i / len * plane_len + sums.place(i % len)] = from[i]);
                    let mut out = vec![F32x16::ZERO; to * tiles];
                    let (values, line) = (&plane[..], &mut Vec::new());
                    isa.run(Apply { sums, values, out: &mut out, tiles, line });
                    out
                };
                let (found, found_back) = (apply(&forward, &values, count), apply(&back, &components, 35));
                let (mut exact, mut exact_back) = (vec![F32x16::ZERO; count * tiles], vec![F32x16::ZERO; 35 * tiles]);
                for (t, k) in (0..tiles).flat_map(|t| (0..count).map(move |k| (t, k))) {
                    operator.for_each_weight(k, shape, |place, weight| {
                        for lane in 0..16 {
                            let (value, component) = (t * 35 + place, t * count + k);
                            exact[component].0[lane] += weight as f32 * values[value].0[lane];
                            exact_back[value].0[lane] += weight as f32 * components[component].0[lane];
                        }
                    });
                }
                assert_eq!((found, found_back), (exact, exact_back), "{operator:?}");
            }
        }
    }
}
