//! The dense route for square windows and masks: every image's weight on every window is formed.

use super::batch::Batch;
use super::call::Call;
use super::memory::Memory;
use super::passes::{self, PassOutput};
use super::posterior::WindowPosteriors;
use super::queue::LaunchQueue;
use super::sources::Precision;
use crate::error::Result;

/// Both passes, for the queries whose candidates were not weighed: in float32, and again in float64 for those of which the
/// first pass finds that float32 has too few digits.
pub(super) fn run(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    posteriors: &WindowPosteriors,
    shard_sums: &Memory,
) -> Result<()> {
    both_passes(call, queue, batch, posteriors, shard_sums, Precision::Single)?;
    if batch.may_need_double(call, queue)? {
        both_passes(call, queue, batch, posteriors, shard_sums, Precision::Double)?;
    }
    Ok(())
}

/// Both passes with energies of one precision, for the queries that are computed in it.
fn both_passes(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    posteriors: &WindowPosteriors,
    shard_sums: &Memory,
    precision: Precision,
) -> Result<()> {
    let shards = 0..call.bank.shards();
    // In the sparse regime the scan and the sums over candidates have counted the work.
    let counts = batch.candidates.is_none();
    let (least, sum) = (posteriors.shard_least.address(), posteriors.shard_sum.address());
    passes::run(call, queue, batch, &PassOutput::Posteriors { precision, least, sum }, shards.clone(), counts)?;
    posteriors.merge(call, queue, batch, precision)?;
    let (normaliser, shard_sums) = (posteriors.normaliser(), shard_sums.address());
    passes::run(call, queue, batch, &PassOutput::Composites { precision, normaliser, shard_sums }, shards, counts)
}
