//! The dense route for square windows and masks: every image's weight on every window is formed.

use super::batch::Batch;
use super::call::Call;
use super::layout::kernel_args;
use super::passes::{self, Pass};
use super::posterior::WindowPosteriors;
use super::queue::LaunchQueue;
use crate::error::Result;

/// Both passes, for the queries whose candidates were not weighed.
pub(super) fn run(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    posteriors: &WindowPosteriors,
) -> Result<()> {
    let shards = 0..call.bank.shards();
    // In the sparse regime the scan and the sums over candidates have counted the work.
    let counts = batch.candidates.is_none();
    let (shard_least, shard_sum) = (&posteriors.shard_least, &posteriors.shard_sum);
    let outputs: &[_] = kernel_args![shard_least.address_ref(), shard_sum.address_ref()];
    passes::run(call, queue, batch, Pass::Posteriors, shards.clone(), counts, outputs)?;
    posteriors.merge(call, queue, batch)?;
    let normaliser = posteriors.normaliser();
    let outputs: &[_] = kernel_args![&normaliser, batch.shard_sums.address_ref()];
    passes::run(call, queue, batch, Pass::Composites, shards, counts, outputs)
}
