//! Normalised weights of a tile, and the sums of pixels that they make.

use super::call::{Planes, Query, Tile, ValueOf, fold_channels};
use super::evidence::Evidence;
use super::operate::{apply, apply_adjoint};
use crate::filter::{Filter, Operator, Weights};
use crate::simd::{F64x16, VectorF64};

/// The product of what a pixel is above z and a direction.
struct Product<'a> {
    pixels: &'a [F64x16],
    query: &'a Query,
    direction: &'a [f64],
}

impl ValueOf for Product<'_> {
    #[inline(always)]
    fn of<V: VectorF64>(&self, value: usize) -> V {
        let (z, v) = (self.query.near(value), self.direction[value]);
        V::load(&self.pixels[value]).sub(V::splat(z)).mul(V::splat(v))
    }
}

impl Tile<'_> {
    /// The normalised weights of the images on every component, in the place of energies. False where all of them are
    /// negligible.
    #[inline(always)]
    pub(super) fn weights<V: VectorF64>(&mut self, evidence: &Evidence) -> bool {
        if self.is_empty() {
            return false;
        }
        self.energies::<V>();
        let logit_scale = self.call.queries[self.query].logit_scale;
        let margin = self.call.cutoff() / logit_scale;
        let mut any = false;
        for (k, weights) in self.planes.components.iter_mut().enumerate() {
            let energies = V::load(weights);
            if energies.least() > evidence.least[k] + margin {
                *weights = F64x16::ZERO;
                continue;
            }
            any = true;
            let bits = V::splat(evidence.least[k]).sub(energies).mul(V::splat(logit_scale));
            bits.exp2().mul(V::splat(evidence.scale[k])).store(weights);
        }
        any
    }

    /// Sums of pixels less `z` where asked for, times a direction, on every component of `operator`, to the products.
    #[inline(always)]
    pub(super) fn products<V: VectorF64>(&mut self, operator: &Operator, direction: &[f64]) {
        let Self { call, query, pixels, planes, .. } = self;
        let products = Product { pixels, query: &call.queries[*query], direction };
        fold_channels::<V>(call.filter, operator.per_value, &products, &mut planes.values);
        planes.products.resize(call.filter.count(), F64x16::ZERO);
        apply::<V>(operator, call.filter.shape(), &planes.values, &mut planes.products, &mut planes.scratch);
    }

    /// Turns products into weights times what they are above their means.
    #[inline(always)]
    pub(super) fn tilt<V: VectorF64>(&mut self, means: &[f64]) {
        let Planes { components, products, .. } = &mut *self.planes;
        for ((product, weights), mean) in products.iter_mut().zip(components.iter()).zip(means) {
            V::load(weights).mul(V::load(product).sub(V::splat(*mean))).store(product);
        }
    }

    /// Adds to `sums` `[channel][row][column]` the pixels of the images times what `operator` makes of weights or, if
    /// `tilted`, of products; with `less_z` what pixels are above z.
    #[inline(always)]
    pub(super) fn add_composite<V: VectorF64>(
        &mut self,
        operator: &Operator,
        tilted: bool,
        sums: &mut [f64],
        less_z: bool,
    ) {
        let Self { call, query, pixels, planes, .. } = self;
        let Planes { values, components, products, scratch, .. } = &mut **planes;
        let (filter, weights) = (call.filter, if tilted { products } else { components });
        let values = if matches!(operator.weights, Weights::Places) {
            weights
        } else {
            values.resize(operator.len(filter.shape()), F64x16::ZERO);
            apply_adjoint::<V>(operator, filter.shape(), weights, values, scratch);
            values
        };
        let query = &call.queries[*query];
        for (i, sum) in sums.iter_mut().enumerate() {
            let coefficients = V::load(&values[place_of(filter, operator, i)]);
            let z = if less_z { query.near(i) } else { 0.0 };
            *sum += V::load(&pixels[i]).sub(V::splat(z)).mul(coefficients).sum();
        }
    }
}

/// Where the weight of a value `[channel][row][column]` lies among those of an operator.
#[inline(always)]
pub(super) fn place_of(filter: &Filter, operator: &Operator, value: usize) -> usize {
    let [_, height, width] = filter.shape();
    if operator.per_value { value } else { value % (height * width) }
}
