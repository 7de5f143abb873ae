//! Rounds: work items run in parallel for a fraction of a second, are merged in order, and the monitor is asked.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use rayon::prelude::*;

use super::job::Job;
use super::spare::Spare;
use super::tile::Pixel;
use crate::composite::Monitor;
use crate::error::Result;
use crate::threads;
use crate::windows::{Kind, Windows};

/// Probes that share the tiles of an item, at the least.
pub(super) const PROBES: usize = 8;

/// Bytes of an item's results beyond which more probes do not share it.
const ITEM_BYTES: usize = 3 << 19;

/// Probes of an item: with the full window, where little is done for each, as many as share an image while it is at hand.
pub(super) fn probes_an_item(windows: &Windows, image_len: usize) -> usize {
    match windows.kind() {
        Kind::Full => (ITEM_BYTES / (4 * image_len)).clamp(PROBES, 128),
        Kind::Square { .. } | Kind::Masks(_) => PROBES,
    }
}

/// A round should take about this long: short enough for Ctrl-C, long enough to keep every thread busy.
const ROUND: Duration = Duration::from_millis(100);

/// Most items whose results wait for their merge at once.
const WAITING: usize = 64;

/// Most bytes of results that wait, as far as one item a thread allows.
const WAITING_BYTES: usize = 1 << 24;

/// One shard of the bank for a few probes.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Images of the shard.
    pub(super) images: Range<usize>,
    /// Probes that visit it.
    pub(super) probes: Range<usize>,
}

/// Runs the items of one pass after the other, and keeps count for the monitor.
pub(super) struct Rounds<'m, 'a> {
    pool: Arc<ThreadPool>,
    monitor: &'m mut Monitor<'a>,
    /// Items of the next round.
    items: usize,
    /// Most items of a round.
    most: usize,
    done: u64,
    total: u64,
}

impl<'m, 'a> Rounds<'m, 'a> {
    /// Ready to do `total` work on images of `image_len` values and their `windows`, reported to `monitor`.
    pub(super) fn new(total: u64, windows: &Windows, image_len: usize, monitor: &'m mut Monitor<'a>) -> Result<Self> {
        let pool = threads::pool()?;
        let items = pool.current_num_threads();
        let most = (WAITING_BYTES / (4 * probes_an_item(windows, image_len) * image_len)).min(WAITING).max(items);
        Ok(Self { pool, monitor, items, most, done: 0, total })
    }

    /// Runs `work` on every item of `job`, which returns one result a probe, and merges the results into each probe's
    /// total, shard by shard in order. `space` makes the working space of a thread.
    pub(super) fn run<P: Pixel, S: Send, R: Send, T: Send>(
        &mut self,
        job: &Job<'_, P>,
        totals: &mut [T],
        space: impl Fn() -> S + Sync,
        work: impl Fn(&Item, &mut S) -> Vec<R> + Sync,
        merge: impl Fn(&mut T, R) + Sync,
    ) -> Result<()> {
        self.run_items(&items(job, LONG), totals, space, work, merge)
    }

    /// The same for some of a job's items.
    pub(super) fn run_items<S: Send, R: Send, T: Send>(
        &mut self,
        items: &[Item],
        totals: &mut [T],
        space: impl Fn() -> S + Sync,
        work: impl Fn(&Item, &mut S) -> Vec<R> + Sync,
        merge: impl Fn(&mut T, R) + Sync,
    ) -> Result<()> {
        let spaces = Spare::new();
        let borrow = |item: &Item| {
            let mut space = spaces.take_or(&space);
            let results = work(item, &mut space);
            spaces.keep(space);
            results
        };
        let mut waiting = items;
        while !waiting.is_empty() {
            let (round, rest) = waiting.split_at(self.items.min(waiting.len()));
            let start = Instant::now();
            let results: Vec<_> = self.pool.install(|| round.par_iter().with_max_len(1).map(borrow).collect());
            self.done += round.iter().map(|item| (item.images.len() * item.probes.len()) as u64).sum::<u64>();
            let mut parts: Vec<Vec<R>> = totals.iter().map(|_| Vec::new()).collect();
            for (item, results) in round.iter().zip(results) {
                parts[item.probes.clone()].iter_mut().zip(results).for_each(|(parts, result)| parts.push(result));
            }
            let merge_all = |(total, parts): (&mut T, Vec<R>)| parts.into_iter().for_each(|part| merge(total, part));
            self.pool.install(|| totals.par_iter_mut().zip(parts).for_each(merge_all));
            self.adapt(start.elapsed());
            (self.monitor)(self.done.min(self.total), self.total)?;
            waiting = rest;
        }
        Ok(())
    }

    /// Runs `work` on the engine's threads.
    pub(super) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Counts work that turned out not to be needed.
    pub(super) fn skip(&mut self, work: usize) -> Result<()> {
        self.done += work as u64;
        (self.monitor)(self.done.min(self.total), self.total)
    }

    /// Rounds are cut by time; the order of merging, and so the result, does not depend on where they are cut.
    fn adapt(&mut self, elapsed: Duration) {
        let threads = self.pool.current_num_threads();
        if elapsed < ROUND / 2 {
            self.items = (2 * self.items).min(self.most);
        } else if elapsed > 2 * ROUND {
            self.items = (self.items / 2).max(threads);
        }
    }
}

/// All items of a job, shard by shard; shards of `long` images are long enough.
pub(super) fn items<P: Pixel>(job: &Job<'_, P>, long: usize) -> Vec<Item> {
    let shard = shard_len(job.bank.len(), job.bank.image_len(), long);
    let items = |images: Range<usize>| probes_of_items(job).map(move |probes| Item { images: images.clone(), probes });
    blocks(job.bank.len(), shard).flat_map(items).collect()
}

/// The probes of the items of every shard.
pub(super) fn probes_of_items<P: Pixel>(job: &Job<'_, P>) -> impl Iterator<Item = Range<usize>> + use<P> {
    blocks(job.probes.len(), probes_an_item(&job.views[0], job.bank.image_len()))
}

/// `count` things, `block` at a time.
fn blocks(count: usize, block: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(block).map(move |start| start..count.min(start + block))
}

/// So many images make a shard long enough for starting not to be felt: every window has to find its shift again, which
/// with 192 images takes a tenth of the time at side 3.
const LONG: usize = 640;

/// Images a shard: 64 shards to share among threads where they are `long` enough, at least 16 elsewhere; none so long that
/// Ctrl-C has to wait. It depends on the bank alone, as the cut into shards decides the bits of the result.
fn shard_len(images: usize, image_len: usize, long: usize) -> usize {
    const MANY: usize = 64;
    const FEW: usize = 16;
    const LONGEST: usize = 1 << 22;
    let longest = (LONGEST / image_len).clamp(64, 4096);
    let shortest = images.div_ceil(FEW).clamp(64, long.min(longest));
    images.div_ceil(MANY).clamp(shortest, longest).next_multiple_of(64)
}

#[cfg(test)]
mod tests {
    use super::{LONG, shard_len};

    #[test]
    fn shards_are_many_or_long() {
        // CIFAR-10 and parts of it, and images of 256 by 256.
        for (images, image_len, shard) in [
            (1, 3072, 64),
            (256, 3072, 64),
            (2_000, 3072, 128),
            (10_000, 3072, 640),
            (50_000, 3072, 832),
            (1_000_000, 3072, 1408),
            (50_000, 196_608, 64),
        ] {
            assert_eq!(shard_len(images, image_len, LONG), shard, "{images} images of {image_len}");
        }
    }
}
