//! The queries of a call in batches of one regime that fit into the device's memory, each on the route of its windows.

use super::batch::Batch;
use super::call::Call;
use super::components::DeviceKind;
use super::memory::Memory;
use super::posterior::WindowPosteriors;
use super::queue::LaunchQueue;
use super::{dense, full, passes, sparse};
use crate::error::Result;
use crate::regime::Regime;

/// Most queries per batch: enough to keep a large GPU busy, few enough for their states.
const MAX_QUERIES: usize = 64;

/// Denoises all queries of a call.
pub(super) fn run(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>) -> Result<()> {
    // The images get memory first; what is left decides how many queries make a batch.
    drop(call.bank.on_device(call.host_bank, &queue.stream, &(0..1))?);
    let free = call.bank.device.context.free_memory()?;
    let sigma = call.queries.sigma;
    for regime in Regime::ALL {
        let rows: Vec<usize> =
            (0..sigma.len()).filter(|&row| Regime::at(sigma[row], call.bank.range.reach) == regime).collect();
        for rows in rows.chunks(queries_per_batch(call, regime, free)) {
            let batch = Batch::new(call, queue, regime, rows)?;
            let shard_sums = Memory::new(&queue.stream, batch.probe_count * sums_per_probe(call), "sums of pixels")?;
            sum(call, queue, &batch, &shard_sums)?;
            batch.finish(call, queue, &shard_sums)?;
            queue.end_step(0)?;
        }
    }
    Ok(())
}

/// Bytes of the weighted sums of the shards' pixels, for a probe.
fn sums_per_probe(call: &Call<'_>) -> usize {
    call.bank.shards() * call.bank.image_len() * 4
}

/// Forms the weighted sums of a batch, `[probe][shard][channel][pixel]`.
fn sum(call: &Call<'_>, queue: &mut LaunchQueue<'_, '_>, batch: &Batch, shard_sums: &Memory) -> Result<()> {
    match call.components.kind {
        DeviceKind::Full => full::run(call, queue, batch, shard_sums),
        DeviceKind::Square(_) | DeviceKind::Masks(_) => {
            let posteriors = WindowPosteriors::new(call, &queue.stream, batch)?;
            if let Some(candidates) = &batch.candidates {
                sparse::run(call, queue, batch, candidates, &posteriors)?;
            }
            dense::run(call, queue, batch, &posteriors, shard_sums)
        }
    }
}

/// Queries whose memory fits into `free` bytes, with a quarter left for others.
fn queries_per_batch(call: &Call<'_>, regime: Regime, free: usize) -> usize {
    let route = match call.components.kind {
        DeviceKind::Full => full::bytes_per_query(call),
        DeviceKind::Square(_) | DeviceKind::Masks(_) => {
            WindowPosteriors::bytes_per_query(call) + passes::slab_bytes_per_query(call)
        }
    };
    let sums = call.mirrors() * sums_per_probe(call);
    (free / 4 * 3 / (route + sums + Batch::bytes_per_query(call, regime))).clamp(1, MAX_QUERIES)
}
