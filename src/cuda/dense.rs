//! The dense route for square windows and masks: every image's weight on every window is formed.

use super::batch::Batch;
use super::call::Call;
use super::passes::{self, PassOutput};
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
    let (least, sum) = (posteriors.shard_least.address(), posteriors.shard_sum.address());
    passes::run(call, queue, batch, &PassOutput::Posteriors { least, sum }, shards.clone(), counts)?;
    posteriors.merge(call, queue, batch)?;
    let (normaliser, shard_sums) = (posteriors.normaliser(), batch.shard_sums.address());
    passes::run(call, queue, batch, &PassOutput::Composites { normaliser, shard_sums }, shards, counts)
}
