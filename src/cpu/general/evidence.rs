//! Pass 1: the softmax of every component over images and views, with its entropy.

use std::ops::Range;

use super::call::{Call, Pass, Tile};
use crate::error::Result;
use crate::monitor::Monitor;
use crate::simd::{F64x16, VectorF64};

/// How far below the best so far, in powers of two, images may be passed over: all of them together are below 2^-60 of the sum.
const NEGLIGIBLE_BITS: f64 = 110.0;

/// What pass 1 finds for a query, per component.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    /// The least energy.
    pub(super) least: Vec<f64>,
    /// The reciprocal of the sum of weights relative to it.
    pub(super) scale: Vec<f64>,
    /// The base-2 logarithm of the sum of weights, for energies as the passes form them.
    log2_sums: Vec<f64>,
    /// The entropy in powers of two.
    pub(super) entropies: Vec<f64>,
}

/// The softmax of a component over some images.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    least: f64,
    sum: f64,
    /// The weighted sum of what energies lie above the least one.
    above: f64,
}

impl State {
    const EMPTY: Self = Self { least: f64::MAX, sum: 0.0, above: 0.0 };

    /// Makes sums relative to a smaller least energy.
    #[inline(always)]
    fn lower(&mut self, least: f64, logit_scale: f64) {
        let share = (logit_scale * (least - self.least)).exp2();
        self.above = share * (self.above + self.sum * (self.least - least));
        self.sum *= share;
        self.least = least;
    }

    #[inline(always)]
    fn add<V: VectorF64>(&mut self, energies: &F64x16, logit_scale: f64, margin: f64) {
        let energies = V::load(energies);
        let best = energies.least();
        if best >= f64::MAX || best > self.least + margin {
            return;
        }
        if best < self.least {
            self.lower(best, logit_scale);
        }
        let above = energies.sub(V::splat(self.least));
        let bits = above.mul(V::splat(-logit_scale));
        let weights = bits.exp2();
        self.sum += weights.sum();
        // What lies so far above that its weight is zero may be infinite.
        self.above += weights.mul(above.where_from(bits, V::splat(-2.0 * NEGLIGIBLE_BITS))).sum();
    }

    fn merge(&mut self, other: Self, logit_scale: f64) {
        if other.sum == 0.0 {
            return;
        }
        let (mut low, mut high) = if other.least < self.least { (other, *self) } else { (*self, other) };
        if high.sum > 0.0 {
            high.lower(low.least, logit_scale);
            low.sum += high.sum;
            low.above += high.above;
        }
        *self = low;
    }
}

struct FindEvidence;

/// The states of a query, and its logit scale.
struct Total {
    states: Vec<State>,
    logit_scale: f64,
}

impl Pass for FindEvidence {
    type Partial = Vec<State>;
    type Total = Total;

    fn start(&self, call: &Call<'_>, _query: usize, _shard: &Range<usize>) -> Vec<State> {
        vec![State::EMPTY; call.filter.count()]
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, states: &mut Vec<State>) {
        if tile.is_empty() {
            return;
        }
        tile.energies::<V>();
        let logit_scale = tile.call.queries[tile.query].logit_scale;
        let margin = NEGLIGIBLE_BITS / logit_scale;
        for (state, energies) in states.iter_mut().zip(&tile.planes.components) {
            state.add::<V>(energies, logit_scale, margin);
        }
    }

    fn merge(&self, total: &mut Total, states: Vec<State>) {
        let Total { states: totals, logit_scale } = total;
        totals.iter_mut().zip(states).for_each(|(total, state)| total.merge(state, *logit_scale));
    }
}

impl Evidence {
    /// Of every query of a call; it is pass `done` of `passes`.
    pub(crate) fn find(call: &Call<'_>, part: (u64, u64), monitor: &mut Monitor<'_>) -> Result<Vec<Self>> {
        let empty = |query: &super::call::Query| Total {
            states: vec![State::EMPTY; call.filter.count()],
            logit_scale: query.logit_scale,
        };
        let mut totals: Vec<Total> = call.queries.iter().map(empty).collect();
        let of_query = size_of::<State>() * call.filter.count();
        call.run(&FindEvidence, &mut totals, of_query, part, monitor)?;
        Ok(totals.into_iter().map(|Total { states, logit_scale }| Self::new(&states, logit_scale)).collect())
    }

    fn new(states: &[State], logit_scale: f64) -> Self {
        let of = |of: fn(&State, f64) -> f64| states.iter().map(|state| of(state, logit_scale)).collect();
        Self {
            least: of(|state, _| state.least),
            scale: of(|state, _| 1.0 / state.sum),
            log2_sums: of(|state, logit_scale| state.sum.log2() - logit_scale * state.least),
            entropies: of(|state, logit_scale| state.sum.log2() + logit_scale * state.above / state.sum),
        }
    }

    /// The evidence of one of several ranks, of all of whose weights its images have a share on every component: its base-2
    /// logarithm. Entropies are what these images add to those of all.
    pub(crate) fn shared(&self, log2_shares: &[f64]) -> Self {
        let shares = || log2_shares.iter().map(|log| (log.exp2(), log));
        let part_of =
            |(entropy, (share, log)): (&f64, (f64, &f64))| if share > 0.0 { share * (entropy - log) } else { 0.0 };
        Self {
            least: self.least.clone(),
            scale: self.scale.iter().zip(shares()).map(|(scale, (share, _))| scale * share).collect(),
            log2_sums: self.log2_sums.iter().zip(log2_shares).map(|(sum, log)| sum - log).collect(),
            entropies: self.entropies.iter().zip(shares()).map(part_of).collect(),
        }
    }

    /// The logarithms of the sums of weights of a query, in nats.
    pub(crate) fn log_evidence(&self, call: &Call<'_>, query: usize) -> Vec<f64> {
        let (query, filter) = (&call.queries[query], call.filter);
        let squares: Vec<f64> = query.left_out_squares().collect();
        let plane = filter.shape()[1] * filter.shape()[2];
        let (mut of_place, operator) = (squares.clone(), filter.precision());
        if !operator.per_value {
            of_place = (0..plane).map(|p| squares[p..].iter().step_by(plane).sum()).collect();
        }
        let is_near = of_place.iter().all(|&square| square == 0.0);
        let constant = |k: usize| {
            let mut sum = 0.0;
            if !is_near {
                operator.for_each_weight(k, filter.shape(), |place, weight| sum += weight * of_place[place]);
            }
            sum
        };
        let nats = |(k, bits): (usize, &f64)| {
            (bits - query.logit_scale * constant(k)) * std::f64::consts::LN_2 + call.sources.log_prior
        };
        self.log2_sums.iter().enumerate().map(nats).collect()
    }
}
