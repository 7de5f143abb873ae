//! Further passes, given the evidence: composites, statistics, variances and derivatives.

use std::ops::Range;

use super::call::{Call, Pass, Tile};
use super::evidence::Evidence;
use crate::error::Result;
use crate::heaviest::{ProbeStatistics, Wanted};
use crate::monitor::Monitor;
use crate::simd::{LANES, VectorF64};

/// Weighted sums of centred pixels over all components, `[channel][row][column]`.
struct Composite<'a> {
    evidence: &'a [Evidence],
}

impl Pass for Composite<'_> {
    type Partial = Vec<f64>;
    type Total = Vec<f64>;

    fn start(&self, call: &Call<'_>, _query: usize, _shard: &Range<usize>) -> Vec<f64> {
        vec![0.0; call.len()]
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, sums: &mut Vec<f64>) {
        if tile.weights::<V>(&self.evidence[tile.query]) {
            tile.add_composite::<V>(tile.call.filter.response(), false, sums, false);
        }
    }

    fn merge(&self, total: &mut Vec<f64>, sums: Vec<f64>) {
        add_all(total, &sums);
    }
}

fn add_all(total: &mut [f64], values: &[f64]) {
    total.iter_mut().zip(values).for_each(|(total, value)| *total += value);
}

/// The composites of every query, in the units of the images, `[query][channel][row][column]`.
pub(crate) fn composites(
    call: &Call<'_>,
    evidence: &[Evidence],
    part: (u64, u64),
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Vec<f64>>> {
    let mut sums = vec![vec![0.0; call.len()]; call.queries.len()];
    call.run(&Composite { evidence }, &mut sums, 8 * call.len(), part, monitor)?;
    let (unit, centre, cover) = (call.bank.unit(), call.bank.range().centre, call.filter.cover());
    for sums in &mut sums {
        sums.iter_mut().zip(cover).for_each(|(sum, cover)| *sum = *sum / (cover * unit) + centre);
    }
    Ok(sums)
}

/// The heaviest images of every component, and sums of weights per image.
struct Statistics<'a> {
    evidence: &'a [Evidence],
    wanted: Wanted,
}

impl Pass for Statistics<'_> {
    type Partial = ProbeStatistics;
    type Total = ProbeStatistics;

    fn start(&self, call: &Call<'_>, _query: usize, shard: &Range<usize>) -> ProbeStatistics {
        let mut found = ProbeStatistics::new(call.filter.count(), shard.len(), self.wanted);
        found.first = shard.start;
        found
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, found: &mut ProbeStatistics) {
        if !tile.weights::<V>(&self.evidence[tile.query]) {
            return;
        }
        let least = (-tile.call.cutoff()).exp2();
        for (k, weights) in tile.planes.components.iter().enumerate() {
            for lane in 0..LANES {
                let weight = weights.0[lane];
                if weight > least {
                    if self.wanted.top > 0 {
                        found.heaviest.insert(k, weight.log2(), tile.first + lane, tile.view as u32);
                    }
                    if self.wanted.attribution {
                        found.attribution[tile.first - found.first + lane] += weight;
                    }
                }
            }
        }
    }

    fn merge(&self, total: &mut ProbeStatistics, found: ProbeStatistics) {
        total.merge(&found);
    }
}

/// What the posteriors of every query say about images.
pub(crate) fn statistics(
    call: &Call<'_>,
    evidence: &[Evidence],
    wanted: Wanted,
    monitor: &mut Monitor<'_>,
) -> Result<Vec<ProbeStatistics>> {
    let count = call.filter.count();
    let mut found: Vec<ProbeStatistics> =
        evidence.iter().map(|_| ProbeStatistics::new(count, call.sources.len, wanted)).collect();
    let of_query = count * (8 + 32 * wanted.top) + if wanted.attribution { 8 * call.sources.len } else { 0 };
    if wanted.top > 0 || wanted.attribution {
        call.run(&Statistics { evidence, wanted }, &mut found, of_query, (0, 1), monitor)?;
    }
    for (found, evidence) in found.iter_mut().zip(evidence) {
        found.entropy.copy_from_slice(&evidence.entropies);
    }
    Ok(found)
}

/// First and second moments of values, less z, under every component that answers for them.
struct Variance<'a> {
    evidence: &'a [Evidence],
    /// `(component, value, response weight)` of every value of an image that a component answers for, and which of them are
    /// its middle.
    entries: &'a [(usize, usize, f64)],
}

impl Pass for Variance<'_> {
    type Partial = Vec<[f64; 2]>;
    type Total = Vec<[f64; 2]>;

    fn start(&self, _call: &Call<'_>, _query: usize, _shard: &Range<usize>) -> Vec<[f64; 2]> {
        vec![[0.0; 2]; self.entries.len()]
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, moments: &mut Vec<[f64; 2]>) {
        if !tile.weights::<V>(&self.evidence[tile.query]) {
            return;
        }
        let query = &tile.call.queries[tile.query];
        for (&(k, value, _), [first, second]) in self.entries.iter().zip(moments) {
            let above = V::load(&tile.pixels[value]).sub(V::splat(query.near(value)));
            let weighted = V::load(&tile.planes.components[k]).mul(above);
            *first += weighted.sum();
            *second += weighted.mul(above).sum();
        }
    }

    fn merge(&self, total: &mut Vec<[f64; 2]>, moments: Vec<[f64; 2]>) {
        for (total, moment) in total.iter_mut().zip(moments) {
            total[0] += moment[0];
            total[1] += moment[1];
        }
    }
}

/// Per query the variances of values, `[channel][row][column]`, and those of the middle pixels of components, `[component]
/// [channel]`, in squares of the units of the images.
pub(crate) fn variances(
    call: &Call<'_>,
    evidence: &[Evidence],
    monitor: &mut Monitor<'_>,
) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
    let filter = call.filter;
    let [channels, height, width] = filter.shape();
    let (plane, response) = (height * width, filter.response());
    let mut entries = Vec::new();
    for k in 0..filter.count() {
        response.for_each_weight(k, filter.shape(), |place, weight| {
            let repeats = if response.per_value { 1 } else { channels };
            entries.extend((0..repeats).map(|c| (k, c * plane + place, weight)));
        });
        // The pixel in the middle, in all channels.
        let middle = filter.middle(k) % plane;
        entries.extend((0..channels).map(|c| (k, c * plane + middle, 0.0)));
    }
    let mut moments = vec![vec![[0.0; 2]; entries.len()]; evidence.len()];
    call.run(&Variance { evidence, entries: &entries }, &mut moments, 16 * entries.len(), (0, 1), monitor)?;
    let unit = call.bank.unit().powi(2);
    let of_query = |moments: Vec<[f64; 2]>| {
        let (mut values, mut middles) = (vec![0.0; call.len()], Vec::with_capacity(filter.count() * channels));
        for (&(_, value, weight), [first, second]) in entries.iter().zip(moments) {
            let variance = (second - first * first).max(0.0) / unit;
            if weight > 0.0 {
                values[value] += weight * variance / filter.cover()[value];
            } else {
                middles.push(variance);
            }
        }
        (values, middles)
    };
    Ok(moments.into_iter().map(of_query).collect())
}

/// Directions of the queries of a call, and whether they go through the transpose.
pub(crate) struct Along<'a> {
    /// `[query][direction][channel][row][column]`, for the transpose divided by the cover.
    pub(crate) values: &'a [Vec<Vec<f64>>],
    pub(crate) transposed: bool,
}

/// The mean products of images and directions, `[direction][component]`.
struct Means<'a> {
    evidence: &'a [Evidence],
    along: &'a Along<'a>,
}

impl Pass for Means<'_> {
    type Partial = Vec<Vec<f64>>;
    type Total = Vec<Vec<f64>>;

    fn start(&self, call: &Call<'_>, query: usize, _shard: &Range<usize>) -> Vec<Vec<f64>> {
        vec![vec![0.0; call.filter.count()]; self.along.values[query].len()]
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, means: &mut Vec<Vec<f64>>) {
        if !tile.weights::<V>(&self.evidence[tile.query]) {
            return;
        }
        let (from, _) = self.along.operators(tile.call);
        for (direction, means) in self.along.values[tile.query].iter().zip(means) {
            tile.products::<V>(from, direction);
            let pairs = tile.planes.components.iter().zip(&tile.planes.products);
            for (mean, (weights, products)) in means.iter_mut().zip(pairs) {
                *mean += V::load(weights).mul(V::load(products)).sum();
            }
        }
    }

    fn merge(&self, total: &mut Vec<Vec<f64>>, means: Vec<Vec<f64>>) {
        total.iter_mut().zip(means).for_each(|(total, means)| add_all(total, &means));
    }
}

impl Along<'_> {
    /// What forms products, and what spreads them.
    fn operators<'f>(&self, call: &Call<'f>) -> (&'f crate::filter::Operator, &'f crate::filter::Operator) {
        let (precision, response) = (call.filter.precision(), call.filter.response());
        if self.transposed { (response, precision) } else { (precision, response) }
    }
}

/// Sums of pixels under tilted weights, `[direction][channel][row][column]`.
struct Derivative<'a> {
    evidence: &'a [Evidence],
    along: &'a Along<'a>,
    means: &'a [Vec<Vec<f64>>],
}

impl Pass for Derivative<'_> {
    type Partial = Vec<Vec<f64>>;
    type Total = Vec<Vec<f64>>;

    fn start(&self, call: &Call<'_>, query: usize, _shard: &Range<usize>) -> Vec<Vec<f64>> {
        vec![vec![0.0; call.len()]; self.along.values[query].len()]
    }

    #[inline(always)]
    fn add<V: VectorF64>(&self, tile: &mut Tile<'_>, sums: &mut Vec<Vec<f64>>) {
        if !tile.weights::<V>(&self.evidence[tile.query]) {
            return;
        }
        let (from, to) = self.along.operators(tile.call);
        let (directions, means) = (&self.along.values[tile.query], &self.means[tile.query]);
        for ((direction, means), sums) in directions.iter().zip(means).zip(sums) {
            tile.products::<V>(from, direction);
            tile.tilt::<V>(means);
            tile.add_composite::<V>(to, true, sums, true);
        }
    }

    fn merge(&self, total: &mut Vec<Vec<f64>>, sums: Vec<Vec<f64>>) {
        total.iter_mut().zip(sums).for_each(|(total, sums)| add_all(total, &sums));
    }
}

/// The derivatives of composites, `[query][direction][channel][row][column]`.
pub(crate) fn derivatives(
    call: &Call<'_>,
    evidence: &[Evidence],
    along: &Along<'_>,
    (done, passes): (u64, u64),
    monitor: &mut Monitor<'_>,
) -> Result<Vec<Vec<Vec<f64>>>> {
    let empty = |len: usize| -> Vec<Vec<Vec<f64>>> {
        along.values.iter().map(|of_query| vec![vec![0.0; len]; of_query.len()]).collect()
    };
    let directions = along.values.iter().map(Vec::len).max().unwrap_or(0);
    let mut means = empty(call.filter.count());
    let of_query = 8 * directions * call.filter.count();
    call.run(&Means { evidence, along }, &mut means, of_query, (done, passes), monitor)?;
    let mut sums = empty(call.len());
    let pass = Derivative { evidence, along, means: &means };
    call.run(&pass, &mut sums, 8 * directions * call.len(), (done + 1, passes), monitor)?;
    // 1 / sigma^2 in stored units.
    let factors = call.queries.iter().map(|query| 2.0 * query.logit_scale / std::f64::consts::LOG2_E);
    for (of_query, factor) in sums.iter_mut().zip(factors) {
        for (i, value) in of_query.iter_mut().flat_map(|direction| direction.iter_mut().enumerate()) {
            *value *= factor / if along.transposed { 1.0 } else { call.filter.cover()[i] };
        }
    }
    Ok(sums)
}
