//! The composite on the CPU: shards of the bank times blocks of probes, in two passes, on the engine's threads.
//!
//! There are three routes. Where sigma is small, [`sparse`] scans for the few images that carry weight and weighs those
//! alone. Otherwise [`dense`] weighs every image on every window, and [`full`] does so where the only window is the full
//! image. Filters have routes of their own: [`filtered`] in float32, [`general`] in float64.
//!
//! - A *probe* is a query, or its mirror image where flips count: `|z - flip x| = |flip z - x|`, so flips cost a second
//!   probe on the same tile and no second copy of the data; both share one softmax.
//! - A *shard* is consecutive images, and its length depends on the bank alone. A *work item* is one shard and a few probes;
//!   work items run on any thread, their results are merged in the order of the shards, so the bits are always the same.
//! - Within a work item, *groups* of tiles ([`dense::group`]) are transposed once and used by every probe.

mod buffer_pool;
pub(crate) mod call;
mod chunks;
pub(crate) mod composite;
pub(crate) mod dense;
pub(crate) mod derivative;
pub(crate) mod evidence;
pub(crate) mod filtered;
pub(crate) mod full;
pub(crate) mod general;
pub(crate) mod images;
mod job;
pub(crate) mod memory;
pub(crate) mod peak;
mod penalties;
mod precision;
pub(crate) mod probe;
pub(crate) mod rank_derivative;
pub(crate) mod rank_variance;
mod scheduler;
pub(crate) mod sparse;
pub(crate) mod statistics;
pub(crate) mod tile;
pub(crate) mod variance;

use ndarray::{Array4, Array5, ArrayView5, Axis, Slice, s};

use crate::bank::Bank;
use crate::components::Components;
use crate::directions::{Directions, part_of_monitor, parts_of};
use crate::error::Result;
use crate::found::finish;
use crate::monitor::Monitor;
use crate::query::Queries;
use call::Call;
use composite::WholeComposite;
use derivative::{Derivative, WholeDerivative};

/// See [`crate::Engine::composite`].
pub(crate) fn composite(
    bank: &Bank<'_>,
    components: &Components,
    queries: &Queries<'_>,
    flips: bool,
    monitor: &mut Monitor<'_>,
) -> Result<Array4<f32>> {
    let (cover, mut denoised) = (components.cover(), Array4::zeros(queries.z().shape()));
    Call::new(bank, components, queries, flips).run(&WholeComposite, monitor, |query, sums| {
        finish(bank, &cover, &sums, denoised.slice_mut(s![query, .., .., ..]));
    })?;
    Ok(denoised)
}

/// See [`crate::Engine::jvp`].
pub(crate) fn jvp(
    bank: &Bank<'_>,
    components: &Components,
    queries: &Queries<'_>,
    flips: bool,
    directions: ArrayView5<'_, f64>,
    transposed: bool,
    monitor: &mut Monitor<'_>,
) -> Result<(Array4<f32>, Array5<f32>)> {
    let (cover, mut denoised) = (components.cover(), Array4::zeros(queries.z().shape()));
    let mut found = Array5::zeros(directions.raw_dim());
    let call = Call::new(bank, components, queries, flips);
    let parts = parts_of(&directions);
    for (i, part) in (0..).zip(&parts) {
        let monitor = &mut part_of_monitor(monitor, i, parts.len() as u64);
        let part = Slice::from(part.clone());
        let values = directions.slice_axis(Axis(0), part);
        let directions = Directions::new(bank, components, queries.sigma(), values, transposed)?;
        let mut found = found.slice_axis_mut(Axis(0), part);
        call.run(
            &WholeDerivative { derivative: Derivative { directions: directions.values() } },
            monitor,
            |query, of_query| {
                finish(bank, &cover, &of_query.composite, denoised.slice_mut(s![query, .., .., ..]));
                directions.finish(query, &of_query, found.index_axis_mut(Axis(1), query));
            },
        )?;
    }
    Ok((denoised, found))
}
