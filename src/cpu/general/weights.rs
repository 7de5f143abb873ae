//! Normalised weights of a tile, and the sums of pixels that they make.

use super::call::{Planes, Tile, fold_channels};
use super::evidence::Evidence;
use super::exp2::exp2;
use super::operate::{apply, apply_adjoint};
use crate::filter::{Filter, Operator};
use crate::simd::{F64x16, LANES};

impl Tile<'_> {
    /// The normalised weights of the images on every component, in the place of energies. False where all of them are
    /// negligible.
    #[inline(always)]
    pub(super) fn weights(&mut self, evidence: &Evidence) -> bool {
        if self.is_empty() {
            return false;
        }
        self.energies();
        let logit_scale = self.call.queries[self.query].logit_scale;
        let margin = self.call.cutoff() / logit_scale;
        let mut any = false;
        for (k, weights) in self.planes.components.iter_mut().enumerate() {
            if weights.least() > evidence.least[k] + margin {
                *weights = F64x16::ZERO;
                continue;
            }
            any = true;
            let mut bits = F64x16::ZERO;
            for lane in 0..LANES {
                bits.0[lane] = logit_scale * (evidence.least[k] - weights.0[lane]);
            }
            *weights = exp2(&bits);
            weights.0.iter_mut().for_each(|weight| *weight *= evidence.scale[k]);
        }
        any
    }

    /// Sums of pixels less `z` where asked for, times a direction, on every component of `operator`, to the products.
    #[inline(always)]
    pub(super) fn products(&mut self, operator: &Operator, direction: &[f64]) {
        let Self { call, query, pixels, planes, .. } = self;
        let query = &call.queries[*query];
        let product = |value: usize| {
            let mut product = pixels[value];
            let (z, v) = (query.near(value), direction[value]);
            product.0.iter_mut().for_each(|a| *a = (*a - z) * v);
            product
        };
        fold_channels(call.filter, operator.per_value, product, &mut planes.values);
        planes.products.resize(call.filter.count(), F64x16::ZERO);
        apply(operator, call.filter.shape(), &planes.values, &mut planes.products, &mut planes.scratch);
    }

    /// Turns products into weights times what they are above their means.
    #[inline(always)]
    pub(super) fn tilt(&mut self, means: &[f64]) {
        let Planes { components, products, .. } = &mut *self.planes;
        for ((product, weights), mean) in products.iter_mut().zip(components.iter()).zip(means) {
            for lane in 0..LANES {
                product.0[lane] = weights.0[lane] * (product.0[lane] - mean);
            }
        }
    }

    /// Adds to `sums` `[channel][row][column]` the pixels of the images times what `operator` makes of weights or, if
    /// `tilted`, of products; `value` says what of a pixel and z is summed.
    #[inline(always)]
    pub(super) fn add_composite(
        &mut self,
        operator: &Operator,
        tilted: bool,
        sums: &mut [f64],
        value: impl Fn(f64, f64) -> f64,
    ) {
        let Self { call, query, pixels, planes, .. } = self;
        let Planes { values, components, products, scratch, .. } = &mut **planes;
        let (filter, weights) = (call.filter, if tilted { products } else { components });
        values.resize(operator.len(filter.shape()), F64x16::ZERO);
        apply_adjoint(operator, filter.shape(), weights, values, scratch);
        let query = &call.queries[*query];
        for (i, sum) in sums.iter_mut().enumerate() {
            let (coefficients, z) = (&values[place_of(filter, operator, i)], query.near(i));
            let mut total = 0.0;
            for lane in 0..LANES {
                total += coefficients.0[lane] * value(pixels[i].0[lane], z);
            }
            *sum += total;
        }
    }
}

/// Where the weight of a value `[channel][row][column]` lies among those of an operator.
#[inline(always)]
pub(super) fn place_of(filter: &Filter, operator: &Operator, value: usize) -> usize {
    let [_, height, width] = filter.shape();
    if operator.per_value { value } else { value % (height * width) }
}
