//! How weights are applied to planes of sixteen images, and their adjoint. Sums never subtract, so that nothing of a large
//! value stays behind.

use crate::filter::{Operator, Weights};
use crate::simd::{F64x16, LANES};

/// Room for sums on their way.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    across: Vec<F64x16>,
    line: Vec<F64x16>,
    sums: Vec<F64x16>,
}

#[inline(always)]
pub(super) fn add(sum: &mut F64x16, value: &F64x16) {
    for lane in 0..LANES {
        sum.0[lane] += value.0[lane];
    }
}

#[inline(always)]
pub(super) fn add_times(sum: &mut F64x16, value: &F64x16, weight: f64) {
    for lane in 0..LANES {
        sum.0[lane] += value.0[lane] * weight;
    }
}

/// The weighted sums of `values` on every component.
#[inline(always)]
pub(super) fn apply(
    operator: &Operator,
    [_, height, width]: [usize; 3],
    values: &[F64x16],
    out: &mut [F64x16],
    scratch: &mut Scratch,
) {
    match &operator.weights {
        Weights::Boxes { side, wraps } => boxes(*side / 2, *wraps, [height, width], values, out, scratch),
        Weights::Taps(taps) => separable(taps, [height, width], values, out, scratch),
        Weights::Places => out.copy_from_slice(values),
        Weights::Rows(rows) => sums_of_lists(|k| rows.by_component.of(k), values, out),
    }
}

/// The adjoint: at every value of an image the weighted sum of components. Boxes and taps are the same both ways.
#[inline(always)]
pub(super) fn apply_adjoint(
    operator: &Operator,
    shape: [usize; 3],
    components: &[F64x16],
    out: &mut [F64x16],
    scratch: &mut Scratch,
) {
    match &operator.weights {
        Weights::Boxes { .. } | Weights::Taps(_) | Weights::Places => {
            apply(operator, shape, components, out, scratch);
        }
        Weights::Rows(rows) => sums_of_lists(|place| rows.by_place.of(place), components, out),
    }
}

#[inline(always)]
fn sums_of_lists<'a>(list: impl Fn(usize) -> &'a [(u32, f64)], values: &[F64x16], out: &mut [F64x16]) {
    for (i, out) in out.iter_mut().enumerate() {
        let mut sum = F64x16::ZERO;
        for &(place, weight) in list(i) {
            add_times(&mut sum, &values[place as usize], weight);
        }
        *out = sum;
    }
}

/// Sums on squares that reach so far around every pixel.
#[inline(always)]
fn boxes(
    reach: usize,
    wraps: bool,
    [height, width]: [usize; 2],
    values: &[F64x16],
    out: &mut [F64x16],
    Scratch { across, line, sums }: &mut Scratch,
) {
    across.resize(height * width, F64x16::ZERO);
    for (row, sums_of_row) in values.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
        sums_around(reach, wraps, 1, row, sums_of_row, line, sums);
    }
    sums_around(reach, wraps, width, across, out, line, sums);
}

/// Sums of the neighbours within `reach` along lines of `stride` places each, all lines side by side: powers of two of them are
/// formed by doubling.
#[inline(always)]
fn sums_around(
    reach: usize,
    wraps: bool,
    stride: usize,
    values: &[F64x16],
    out: &mut [F64x16],
    line: &mut Vec<F64x16>,
    sums: &mut Vec<F64x16>,
) {
    let len = values.len() / stride;
    let (span, padded) = (2 * reach + 1, len + 2 * reach);
    line.resize(padded * stride, F64x16::ZERO);
    for place in 0..padded {
        let to = &mut line[place * stride..(place + 1) * stride];
        let inside = place.checked_sub(reach).filter(|&at| at < len);
        let from = if wraps { Some((place + len * reach.div_ceil(len) - reach) % len) } else { inside };
        match from {
            Some(at) => to.copy_from_slice(&values[at * stride..(at + 1) * stride]),
            None => to.fill(F64x16::ZERO),
        }
    }
    out.fill(F64x16::ZERO);
    // `sums` are those of `power` places from each on; where the span has that power, they are added after those before.
    std::mem::swap(line, sums);
    let (mut power, mut first) = (1, 0);
    while power <= span {
        if span & power != 0 {
            for (out, sum) in out.iter_mut().zip(&sums[first * stride..]) {
                add(out, sum);
            }
            first += power;
        }
        let shift = power * stride;
        for i in 0..sums.len().saturating_sub(shift) {
            let later = sums[i + shift];
            add(&mut sums[i], &later);
        }
        power *= 2;
    }
}

/// Sums of neighbours times taps, down and across.
#[inline(always)]
fn separable(
    taps: &[f64],
    [height, width]: [usize; 2],
    values: &[F64x16],
    out: &mut [F64x16],
    Scratch { across, .. }: &mut Scratch,
) {
    across.resize(height * width, F64x16::ZERO);
    for (row, sums) in values.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
        for (x, sum) in sums.iter_mut().enumerate() {
            *sum = F64x16::ZERO;
            for at in x.saturating_sub(taps.len() - 1)..width.min(x + taps.len()) {
                add_times(sum, &row[at], taps[at.abs_diff(x)]);
            }
        }
    }
    out.fill(F64x16::ZERO);
    for (y, sums) in out.chunks_exact_mut(width).enumerate() {
        for at in y.saturating_sub(taps.len() - 1)..height.min(y + taps.len()) {
            for (sum, value) in sums.iter_mut().zip(&across[at * width..]) {
                add_times(sum, value, taps[at.abs_diff(y)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            apply(&operator, shape, &values, &mut sums, &mut scratch);
            apply_adjoint(&operator, shape, &components, &mut adjoint, &mut scratch);
            let (mut exact, mut exact_adjoint) = (vec![F64x16::ZERO; count], vec![F64x16::ZERO; 30]);
            for k in 0..count {
                operator.for_each_weight(k, shape, |place, weight| {
                    add_times(&mut exact[k], &values[place], weight);
                    add_times(&mut exact_adjoint[place], &components[k], weight);
                });
            }
            let close = |a: &[F64x16], b: &[F64x16]| {
                a.iter().zip(b).all(|(a, b)| a.0.iter().zip(&b.0).all(|(a, b)| (a - b).abs() < 1e-12))
            };
            assert!(close(&sums, &exact) && close(&adjoint, &exact_adjoint), "{operator:?}");
        }
    }
}
