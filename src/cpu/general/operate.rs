//! How weights are applied to planes of sixteen images, and their adjoint. Sums never subtract, so that nothing of a large
//! value stays behind.

use crate::filter::{Operator, Weights};
use crate::simd::{F64x16, VectorF64};

/// Room for sums on their way.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    across: Vec<F64x16>,
    line: Vec<F64x16>,
    sums: Vec<F64x16>,
}

#[inline(always)]
fn add<V: VectorF64>(sum: &mut F64x16, value: &F64x16) {
    V::load(sum).add(V::load(value)).store(sum);
}

#[inline(always)]
fn add_times<V: VectorF64>(sum: &mut F64x16, value: &F64x16, weight: f64) {
    V::load(value).mul_add(V::splat(weight), V::load(sum)).store(sum);
}

/// The weighted sums of `values` on every component.
#[inline(always)]
pub(super) fn apply<V: VectorF64>(
    operator: &Operator,
    [_, height, width]: [usize; 3],
    values: &[F64x16],
    out: &mut [F64x16],
    scratch: &mut Scratch,
) {
    match &operator.weights {
        Weights::Boxes { side, wraps } => boxes::<V>(*side / 2, *wraps, [height, width], values, out, scratch),
        Weights::Taps(taps) => separable::<V>(taps, [height, width], values, out, scratch),
        Weights::Places => out.copy_from_slice(values),
        Weights::Rows(rows) => sums_of_lists::<V>(|k| rows.by_component.of(k), values, out),
    }
}

/// The adjoint: at every value of an image the weighted sum of components. Boxes and taps are the same both ways.
#[inline(always)]
pub(super) fn apply_adjoint<V: VectorF64>(
    operator: &Operator,
    shape: [usize; 3],
    components: &[F64x16],
    out: &mut [F64x16],
    scratch: &mut Scratch,
) {
    match &operator.weights {
        Weights::Boxes { .. } | Weights::Taps(_) | Weights::Places => {
            apply::<V>(operator, shape, components, out, scratch);
        }
        Weights::Rows(rows) => sums_of_lists::<V>(|place| rows.by_place.of(place), components, out),
    }
}

#[inline(always)]
fn sums_of_lists<'a, V: VectorF64>(list: impl Fn(usize) -> &'a [(u32, f64)], values: &[F64x16], out: &mut [F64x16]) {
    for (i, out) in out.iter_mut().enumerate() {
        let mut sum = V::splat(0.0);
        for &(place, weight) in list(i) {
            sum = V::load(&values[place as usize]).mul_add(V::splat(weight), sum);
        }
        sum.store(out);
    }
}

/// Columns that are summed side by side, so that what is on its way stays in the first-level cache.
const COLUMNS: usize = 4;

/// Sums on squares that reach so far around every pixel.
#[inline(always)]
fn boxes<V: VectorF64>(
    reach: usize,
    wraps: bool,
    [height, width]: [usize; 2],
    values: &[F64x16],
    out: &mut [F64x16],
    Scratch { across, line, sums }: &mut Scratch,
) {
    across.resize(height * width, F64x16::ZERO);
    for (row, sums_of_row) in values.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
        let place = |line: &mut [F64x16], to: usize, from: usize| line[to] = row[from];
        pad(reach, wraps, width, 1, line, place);
        sum_spans::<V>(2 * reach + 1, width, 1, line, sums);
        sums_of_row.copy_from_slice(sums);
    }
    for first in (0..width).step_by(COLUMNS) {
        let count = COLUMNS.min(width - first);
        let place = |line: &mut [F64x16], to: usize, from: usize| {
            line[to * count..(to + 1) * count].copy_from_slice(&across[from * width + first..][..count]);
        };
        pad(reach, wraps, height, count, line, place);
        sum_spans::<V>(2 * reach + 1, height, count, line, sums);
        for (row, sums) in out.chunks_exact_mut(width).zip(sums.chunks_exact(count)) {
            row[first..first + count].copy_from_slice(sums);
        }
    }
}

/// Lines of `len` places, `count` of them side by side, with what lies up to `reach` beyond their ends: zeros, or the places at
/// the other end. `place(line, to, from)` fills one place of all lines.
#[inline(always)]
fn pad(
    reach: usize,
    wraps: bool,
    len: usize,
    count: usize,
    line: &mut Vec<F64x16>,
    place: impl Fn(&mut [F64x16], usize, usize),
) {
    line.clear();
    line.resize((len + 2 * reach) * count, F64x16::ZERO);
    let turns = len * reach.div_ceil(len);
    let padded = if wraps { 0..len + 2 * reach } else { reach..reach + len };
    for to in padded {
        place(line, to, (to + turns - reach) % len);
    }
}

/// To `sums` the sums of `span` places from every one of the first `len` on, of `count` lines side by side. Sums of powers of
/// two of places are formed by doubling.
#[inline(always)]
fn sum_spans<V: VectorF64>(span: usize, len: usize, count: usize, line: &mut [F64x16], sums: &mut Vec<F64x16>) {
    sums.clear();
    sums.resize(len * count, F64x16::ZERO);
    let (mut power, mut first) = (1, 0);
    loop {
        if span & power != 0 {
            for (sum, value) in sums.iter_mut().zip(&line[first * count..]) {
                add::<V>(sum, value);
            }
            first += power;
        }
        if 2 * power > span {
            return;
        }
        let shift = power * count;
        for i in 0..line.len().saturating_sub(shift) {
            let later = line[i + shift];
            add::<V>(&mut line[i], &later);
        }
        power *= 2;
    }
}

/// Sums of neighbours times taps, down and across.
#[inline(always)]
fn separable<V: VectorF64>(
    taps: &[f64],
    [height, width]: [usize; 2],
    values: &[F64x16],
    out: &mut [F64x16],
    Scratch { across, .. }: &mut Scratch,
) {
    across.resize(height * width, F64x16::ZERO);
    for (row, sums) in values.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
        for (x, sum) in sums.iter_mut().enumerate() {
            let mut total = V::splat(0.0);
            for at in x.saturating_sub(taps.len() - 1)..width.min(x + taps.len()) {
                total = V::load(&row[at]).mul_add(V::splat(taps[at.abs_diff(x)]), total);
            }
            total.store(sum);
        }
    }
    out.fill(F64x16::ZERO);
    for (y, sums) in out.chunks_exact_mut(width).enumerate() {
        for at in y.saturating_sub(taps.len() - 1)..height.min(y + taps.len()) {
            for (sum, value) in sums.iter_mut().zip(&across[at * width..]) {
                add_times::<V>(sum, value, taps[at.abs_diff(y)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Portable, Vector};

    type Lanes = <Portable<false> as Vector>::F64;
    use crate::filter::Rows;

    /// Some numbers, another one in every lane.
    fn numbers(count: usize) -> Vec<F64x16> {
        let value = |i: usize, lane: usize| ((i * 31 + lane * 17) * 7919 % 1000) as f64 / 500.0 - 1.0;
        (0..count).map(|i| F64x16(std::array::from_fn(|lane| value(i, lane)))).collect()
    }

    #[test]
    fn every_kind_of_weights_is_its_matrix_both_ways() {
        let shape = [1, 5, 6];
        let rows: Vec<f64> = (0..7 * 30).map(|i| if i % 3 == 0 { f64::from(i) / 100.0 } else { 0.0 }).collect();
        let kinds = [
            Weights::Boxes { side: 1, wraps: false },
            Weights::Boxes { side: 3, wraps: false },
            Weights::Boxes { side: 5, wraps: true },
            Weights::Boxes { side: 11, wraps: false },
            Weights::Taps(vec![1.0, 0.5, 0.2]),
            Weights::Taps(vec![1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]),
            Weights::Places,
            Weights::Rows(Rows::new(30, &rows).unwrap()),
        ];
        for weights in kinds {
            let operator = Operator { weights, per_value: false };
            let count = if matches!(operator.weights, Weights::Rows(_)) { 7 } else { 30 };
            let mut scratch = Scratch::default();
            let (values, components) = (numbers(30), numbers(count));
            let (mut sums, mut adjoint) = (vec![F64x16::ZERO; count], vec![F64x16::ZERO; 30]);
            apply::<Lanes>(&operator, shape, &values, &mut sums, &mut scratch);
            apply_adjoint::<Lanes>(&operator, shape, &components, &mut adjoint, &mut scratch);
            let (mut exact, mut exact_adjoint) = (vec![F64x16::ZERO; count], vec![F64x16::ZERO; 30]);
            for k in 0..count {
                operator.for_each_weight(k, shape, |place, weight| {
                    add_times::<Lanes>(&mut exact[k], &values[place], weight);
                    add_times::<Lanes>(&mut exact_adjoint[place], &components[k], weight);
                });
            }
            let close = |a: &[F64x16], b: &[F64x16]| {
                a.iter().zip(b).all(|(a, b)| a.0.iter().zip(&b.0).all(|(a, b)| (a - b).abs() < 1e-12))
            };
            assert!(close(&sums, &exact) && close(&adjoint, &exact_adjoint), "{operator:?}");
        }
    }
}
