//! `Scheduler`: runs work items in parallel, in rounds of a fraction of a second. After each round it merges the results in
//! order and calls the monitor.

use std::borrow::Cow;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rayon::ThreadPool;
use rayon::prelude::*;

use super::buffer_pool::BufferPool;
use super::job::{Job, Signals};
use super::memory;
use super::tile::Pixel;
use crate::components::{Components, Kind};
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::threads;

/// Fewest probes that share the tiles of a work item.
pub(crate) const MIN_PROBES: usize = 8;

/// Most probes of a work item, where the full image is the only window.
const MAX_PROBES: usize = 128;

/// Bytes of the results of a work item beyond which no more probes share it.
const RESULT_BYTES: usize = 3 << 19;

/// A round should take about this long: short enough for Ctrl-C, long enough to keep every thread busy.
const ROUND: Duration = Duration::from_millis(100);

/// Work on more values than this takes so long that the monitor is called while it runs.
const LONG: usize = 1 << 28;

/// Work on fewer values takes less time than a thread takes to wake up and to be waited for.
const SHORT: usize = 1 << 19;

/// A thread goes through so many values in a millisecond, or in less than a round where work is slowest.
const BRIEF: usize = 1 << 22;

/// Most work items whose results wait for their merge at once, with few threads.
const MAX_WAITING: usize = 64;

/// The same for each of many threads, which a round of one work item each would leave idle for most of its time.
const ITEMS_PER_THREAD: usize = 4;

/// Most bytes of results that wait for their merge, with few threads; one work item per thread may wait in any case.
const MAX_WAITING_BYTES: usize = 1 << 24;

/// The same for each of many threads.
const WAITING_BYTES_PER_THREAD: usize = 1 << 20;

/// The same for so many threads.
fn waiting_bytes(threads: usize) -> usize {
    MAX_WAITING_BYTES.max(WAITING_BYTES_PER_THREAD.saturating_mul(threads))
}

/// Shards of this many images amortise what every one of them costs; with 640, as there were before shards started at shifts
/// that are nearly right, 10,000 images took 1 to 3 % less time on two threads, but 64 threads had only sixteen shards.
pub(crate) const AMORTISED_IMAGES: usize = 256;

/// Images after which a window knows where its shift lies, but for a little; a multiple of those of a group.
const PILOT_IMAGES: usize = 64;

/// The fewest images for which that pays, as threads wait for each other once more.
const PILOT_FROM: usize = 1024;

/// Most images of a shard.
const MAX_SHARD: usize = 4096;

/// Shards of a data set under many views, where each has enough pairs of image and view.
const SHARDS_OF_VIEWS: usize = 256;

/// Fewest pairs of such a shard: so many that starting one costs nothing beside them, as in each every component has to find its
/// shift again.
const LEAST_PAIRS: usize = 1024;

/// Most pairs, but for the images of a group: so few that progress is told often.
const MOST_PAIRS: usize = 16_384;

/// The same where the full image is the only window: the means of a shard are sums of float32, which round a little with every
/// 32 images.
const MAX_FULL_SHARD: usize = 1024;

/// Probes per work item. With the full window, where there is little work per pair, as many probes share an image as memory
/// allows.
fn probes_per_item(components: &Components, image_len: usize) -> usize {
    match components.kind() {
        Kind::Full => (RESULT_BYTES / (4 * image_len)).clamp(MIN_PROBES, MAX_PROBES),
        Kind::Square { .. } | Kind::Masks(_) => MIN_PROBES,
    }
}

/// One shard of the bank for a few probes.
#[derive(Debug, Clone)]
pub(crate) struct WorkItem {
    /// Images of the shard.
    pub(crate) images: Range<usize>,
    /// Probes that visit it.
    pub(crate) probes: Range<usize>,
}

/// Runs the work items of the passes of a call, and counts the work for the monitor.
pub(crate) struct Scheduler<'m, 'a> {
    pool: Arc<ThreadPool>,
    monitor: &'m mut Monitor<'a>,
    signals: &'m Signals,
    /// Values of an image.
    image_len: usize,
    /// Bytes of working space of a thread.
    workspace: usize,
    /// Work items of the next round.
    round_len: usize,
    /// Most work items of a round.
    max_round_len: usize,
    done: u64,
    total: u64,
}

impl<'m, 'a> Scheduler<'m, 'a> {
    /// A scheduler for a call on images of `image_len` values, with so many bytes of working space per thread; `total` is the
    /// number of pairs of probe and image over both passes, which `monitor` is told. `signals` tells the threads to stop.
    pub(crate) fn new(
        total: u64,
        components: &Components,
        image_len: usize,
        workspace: usize,
        signals: &'m Signals,
        monitor: &'m mut Monitor<'a>,
    ) -> Result<Self> {
        let number = if matches!(components.kind(), Kind::Full) { size_of::<f32>() } else { size_of::<f64>() };
        let result_bytes = number * probes_per_item(components, image_len) * image_len;
        Self::with_results(total, image_len, workspace, result_bytes, signals, monitor)
    }

    /// The same for work items whose results take so many bytes.
    pub(crate) fn with_results(
        total: u64,
        image_len: usize,
        workspace: usize,
        result_bytes: usize,
        signals: &'m Signals,
        monitor: &'m mut Monitor<'a>,
    ) -> Result<Self> {
        let pool = threads::pool()?;
        let all = pool.current_num_threads();
        let threads = memory::threads_at_once(workspace, all);
        let waiting = (waiting_bytes(all) / result_bytes).min(MAX_WAITING.max(ITEMS_PER_THREAD * all)).max(threads);
        // Where not every thread has room, a round is no longer than those that have.
        let max_round_len = if threads < all { threads } else { waiting };
        Ok(Self { pool, monitor, signals, image_len, workspace, round_len: threads, max_round_len, done: 0, total })
    }

    /// Bytes of the working space of all threads that work at once, and of results that wait.
    pub(crate) fn bytes(&self) -> usize {
        let threads = self.pool.current_num_threads().min(self.max_round_len);
        threads.saturating_mul(self.workspace).saturating_add(2 * waiting_bytes(self.pool.current_num_threads()))
    }

    /// Runs `work` on every work item of `job`, which returns one result per probe, and merges the results into each
    /// probe's total, shard by shard in order. `workspace` makes the working space of a thread.
    pub(crate) fn run<P: Pixel, W: Send, R: Send, T: Send>(
        &mut self,
        job: &Job<'_, P>,
        totals: &mut [T],
        workspace: impl Fn() -> W + Sync,
        work: impl Fn(&WorkItem, &mut W) -> Vec<R> + Sync,
        merge: impl Fn(&mut T, R) + Sync,
    ) -> Result<()> {
        self.run_items(&work_items(job, AMORTISED_IMAGES), totals, workspace, work, merge)?;
        job.check_unchanged()
    }

    /// The same for some of a job's work items.
    pub(crate) fn run_items<W: Send, R: Send, T: Send>(
        &mut self,
        items: &[WorkItem],
        totals: &mut [T],
        workspace: impl Fn() -> W + Sync,
        work: impl Fn(&WorkItem, &mut W) -> Vec<R> + Sync,
        merge: impl Fn(&mut T, R) + Sync,
    ) -> Result<()> {
        let workspaces = BufferPool::new();
        let run_one = |item: &WorkItem| {
            let mut space = workspaces.acquire(&workspace);
            let results = work(item, &mut space);
            workspaces.release(space);
            results
        };
        let threads = self.pool.current_num_threads();
        let values = |item: &WorkItem| item.images.len() * item.probes.len() * self.image_len;
        let longest = |items: &[WorkItem]| items.iter().map(values).max().unwrap_or(0);
        let items = if longest(items) < SHORT { Cow::Borrowed(items) } else { cut_by_probes(items, threads) };
        let (longest, mut waiting) = (longest(&items), &*items);
        while !waiting.is_empty() && !self.signals.is_stopped() {
            let (round, rest) = waiting.split_at(self.next_round(longest).min(waiting.len()));
            let start = Instant::now();
            let run_all = || round.par_iter().with_max_len(1).map(run_one).collect::<Vec<_>>();
            let merge_all = |totals: &mut [T], results: Vec<Vec<R>>| merge_round(round, totals, results, &merge);
            if round.len() == 1 && longest < SHORT {
                // Waking a thread would take longer.
                let results = run_one(&round[0]);
                totals[round[0].probes.clone()]
                    .iter_mut()
                    .zip(results)
                    .for_each(|(total, result)| merge(total, result));
            } else if longest < LONG {
                self.pool.install(|| merge_all(totals, run_all()));
            } else {
                let results = self.run_watched(longest, run_all)?;
                self.pool.install(|| merge_all(totals, results));
            }
            self.done += round.iter().map(|item| (item.images.len() * item.probes.len()) as u64).sum::<u64>();
            self.adapt(start.elapsed());
            memory::check_not_short(self.bytes())?;
            (self.monitor)(self.done.min(self.total), self.total)?;
            waiting = rest;
        }
        Ok(())
    }

    /// How many work items of so many values the next round has: as many as the last one, or what takes a moment only.
    fn next_round(&self, values: usize) -> usize {
        let brief = self.pool.current_num_threads().saturating_mul(BRIEF / values.max(1));
        self.round_len.max(brief.min(self.max_round_len))
    }

    /// Runs `work` on the engine's threads.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Runs `work` on the engine's threads. If a thread has to go through many `values`, the monitor is called while they
    /// work; where it asks to stop, they are told.
    pub(crate) fn run_watched<R: Send>(&mut self, values: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
        if values < LONG {
            return Ok(self.pool.install(work));
        }
        let Self { pool, monitor, signals, done, total, .. } = self;
        let pool = &**pool;
        thread::scope(|scope| {
            let (sender, receiver) = channel();
            let run = move || {
                let result = pool.install(work);
                // Nobody listens any more if the monitor panicked.
                let _ = sender.send(());
                result
            };
            let worker = thread::Builder::new().spawn_scoped(scope, run).map_err(|error| Error::Threads {
                threads: pool.current_num_threads() + 1,
                reason: error.to_string(),
            })?;
            let mut asked = Ok(());
            while receiver.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
                if asked.is_ok() {
                    asked = monitor((*done).min(*total), *total);
                    if asked.is_err() {
                        signals.stop();
                    }
                }
            }
            let result = worker.join().unwrap_or_else(|panic| resume_unwind(panic));
            asked.map(|()| result)
        })
    }

    /// Counts one pass more for some queries of a job, and their mirror images.
    pub(crate) fn repeat<P: Pixel>(&mut self, job: &Job<'_, P>, queries: usize) {
        let probes = queries * job.probes.len() / job.queries();
        self.total += (probes * job.len()) as u64;
    }

    /// Counts what is left as done: less work may have been needed than was counted on.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let left = self.total.saturating_sub(self.done);
        if left > 0 { self.skip(left as usize) } else { Ok(()) }
    }

    /// Counts `work` pairs of probe and image as done that turned out not to be needed.
    pub(crate) fn skip(&mut self, work: usize) -> Result<()> {
        self.done += work as u64;
        (self.monitor)(self.done.min(self.total), self.total)
    }

    /// Adapts the length of the next round to the time of the last one. The order of merging, and so the result, does not
    /// depend on where rounds end.
    fn adapt(&mut self, elapsed: Duration) {
        let threads = self.pool.current_num_threads();
        if elapsed < ROUND / 2 {
            self.round_len = (2 * self.round_len).min(self.max_round_len);
        } else if elapsed > 2 * ROUND {
            self.round_len = (self.round_len / 2).max(threads.min(self.max_round_len));
        }
    }
}

/// Work items cut by their probes where there are too few for the threads. A probe finds the same bits whatever others share its
/// work item, so that these, unlike shards, may depend on the number of threads.
fn cut_by_probes(items: &[WorkItem], threads: usize) -> Cow<'_, [WorkItem]> {
    /// What images cost that all probes of a work item share, in probes.
    const SHARED: f64 = 0.5;
    let probes = items.iter().map(|item| item.probes.len()).max().unwrap_or(1);
    let time = |parts: usize| {
        let each = probes.div_ceil(parts);
        (items.len() * probes.div_ceil(each)).div_ceil(threads) as f64 * (each as f64 + SHARED)
    };
    let cuts = std::iter::successors(Some(1), |parts| Some(2 * parts)).take_while(|&parts| parts <= probes);
    let parts = cuts.min_by(|&a, &b| time(a).total_cmp(&time(b))).unwrap_or(1);
    if parts == 1 || items.len() >= threads {
        return Cow::Borrowed(items);
    }
    let cut = |item: &WorkItem| {
        let images = item.images.clone();
        blocks(item.probes.clone(), probes.div_ceil(parts))
            .map(move |probes| WorkItem { images: images.clone(), probes })
    };
    items.iter().flat_map(cut).collect()
}

/// Merges the results of a round, `[work item][probe]`, into the total of every probe, in order.
fn merge_round<R: Send, T: Send>(
    round: &[WorkItem],
    totals: &mut [T],
    results: Vec<Vec<R>>,
    merge: &(impl Fn(&mut T, R) + Sync),
) {
    let mut by_probe: Vec<Vec<R>> = totals.iter().map(|_| Vec::new()).collect();
    for (item, results) in round.iter().zip(results) {
        by_probe[item.probes.clone()].iter_mut().zip(results).for_each(|(of_probe, result)| of_probe.push(result));
    }
    let merge_all = |(total, of_probe): (&mut T, Vec<R>)| of_probe.into_iter().for_each(|result| merge(total, result));
    totals.par_iter_mut().zip(by_probe).for_each(merge_all);
}

/// All work items of a job, shard by shard; shards of `amortised` images amortise the start-up cost.
pub(crate) fn work_items<P: Pixel>(job: &Job<'_, P>, amortised: usize) -> Vec<WorkItem> {
    let longest = match job.mirrors[0].kind() {
        Kind::Full => MAX_FULL_SHARD,
        Kind::Square { .. } | Kind::Masks(_) => MAX_SHARD,
    };
    let shard = shard_len(job.len(), job.bank.image_len(), amortised, longest);
    let of_shard =
        |images: Range<usize>| probes_of_items(job).map(move |probes| WorkItem { images: images.clone(), probes });
    blocks(0..job.len(), shard).flat_map(of_shard).collect()
}

/// The work items of the first images of a job, and those of all others. What the few find for every window, where its shift has to
/// lie, is where all shards of the others start, at the same time.
pub(crate) fn pilot_and_rest<P: Pixel>(job: &Job<'_, P>) -> [Vec<WorkItem>; 2] {
    with_pilot(work_items(job, AMORTISED_IMAGES), job.len())
}

fn with_pilot(mut rest: Vec<WorkItem>, images: usize) -> [Vec<WorkItem>; 2] {
    if images < PILOT_FROM {
        return [rest, Vec::new()];
    }
    let mut pilot: Vec<WorkItem> = rest.iter().take_while(|item| item.images.start == 0).cloned().collect();
    for (pilot, rest) in pilot.iter_mut().zip(&mut rest) {
        pilot.images.end = pilot.images.end.min(PILOT_IMAGES);
        rest.images.start = pilot.images.end;
    }
    rest.retain(|item| !item.images.is_empty());
    [pilot, rest]
}

/// Work items of images that are seen under many views, a few probes each: shards of so many images, a multiple of `group`, that each
/// has work enough. They depend on the data and the views alone, as the order of additions decides the bits.
pub(crate) fn items_of_views(images: usize, views: usize, probes: usize, group: usize) -> Vec<WorkItem> {
    let images_of = |pairs: usize| pairs.div_ceil(views);
    let shard = images.div_ceil(SHARDS_OF_VIEWS).clamp(images_of(LEAST_PAIRS), images_of(MOST_PAIRS));
    let of_shard = |images: Range<usize>| {
        blocks(0..probes, MIN_PROBES).map(move |probes| WorkItem { images: images.clone(), probes })
    };
    blocks(0..images, shard.next_multiple_of(group)).flat_map(of_shard).collect()
}

/// The work items in epochs of shards, each four times as long as the one before: the least energies of one epoch bound the
/// search of the next.
pub(crate) fn epochs(items: &[WorkItem]) -> impl Iterator<Item = &[WorkItem]> {
    let blocks = items.iter().take_while(|item| item.images.start == 0).count();
    let mut rest = items;
    let mut shards = 1;
    std::iter::from_fn(move || {
        let (epoch, later) = rest.split_at((shards * blocks).min(rest.len()));
        rest = later;
        shards *= 4;
        (!epoch.is_empty()).then_some(epoch)
    })
}

/// The probes of the work items of every shard.
pub(crate) fn probes_of_items<P: Pixel>(job: &Job<'_, P>) -> impl Iterator<Item = Range<usize>> + use<P> {
    blocks(0..job.probes.len(), probes_per_item(&job.mirrors[0], job.bank.image_len()))
}

/// A range in blocks of `len`.
pub(crate) fn blocks(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(len).map(move |start| start..range.end.min(start + len))
}

/// Images per shard: 64 shards, so that threads can share them, if each has at least `amortised` images, else fewer shards,
/// but at least 16; and no shard of more than `most` images, or so long that Ctrl-C has to wait. The length depends on the bank alone, as the cut into
/// shards decides the bits of the result.
fn shard_len(images: usize, image_len: usize, amortised: usize, most: usize) -> usize {
    const SHARDS: usize = 64;
    const MIN_SHARDS: usize = 16;
    const MAX_VALUES: usize = 1 << 22;
    let longest = (MAX_VALUES / image_len).clamp(64, most);
    let shortest = images.div_ceil(MIN_SHARDS).clamp(64, amortised.min(longest));
    images.div_ceil(SHARDS).clamp(shortest, longest).next_multiple_of(64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_is_watched_and_told_to_stop() {
        let (signals, mut calls) = (Signals::new(), 0);
        let monitor: &mut Monitor<'_> = &mut |_, _| {
            calls += 1;
            if calls < 3 { Ok(()) } else { Err(Error::Stopped) }
        };
        let components = Components::full(1, 1).unwrap();
        let mut scheduler = Scheduler::new(1, &components, 1, 1, &signals, monitor).unwrap();
        let work = || {
            while !signals.is_stopped() {
                thread::sleep(Duration::from_millis(1));
            }
        };
        assert_eq!(scheduler.run_watched(LONG, work), Err(Error::Stopped));
        assert_eq!(scheduler.run_watched(0, || 7), Ok(7));
        assert_eq!(calls, 3);
    }

    #[test]
    fn epochs_depend_on_the_data_alone() {
        const SHARD: usize = 64;
        let ends = |blocks: usize| -> Vec<usize> {
            let item = |shard: usize, block: usize| WorkItem {
                images: shard * SHARD..(shard + 1) * SHARD,
                probes: 8 * block..8 * (block + 1),
            };
            let items: Vec<_> = (0..30).flat_map(|shard| (0..blocks).map(move |block| item(shard, block))).collect();
            epochs(&items).map(|epoch| epoch.last().unwrap().images.end / SHARD).collect()
        };
        for blocks in [1, 2, 5] {
            assert_eq!(ends(blocks), [1, 5, 21, 30], "{blocks} work items per shard");
        }
    }

    /// The part of the time of `threads` that work on `probes` takes, if a pair of probe and image takes as long as any other.
    fn busy(images: usize, probes: usize, threads: usize) -> f64 {
        let shard = shard_len(images, 3072, AMORTISED_IMAGES, MAX_SHARD);
        let of_shard = |images: Range<usize>| {
            blocks(0..probes, MIN_PROBES).map(move |probes| WorkItem { images: images.clone(), probes })
        };
        let items: Vec<WorkItem> = blocks(0..images, shard).flat_map(of_shard).collect();
        let time = |items: &[WorkItem]| -> usize {
            let mut free_from = vec![0; threads];
            for item in &*cut_by_probes(items, threads) {
                let first = free_from.iter_mut().min().expect("a thread");
                *first += item.images.len() * item.probes.len();
            }
            free_from.into_iter().max().unwrap_or(0)
        };
        let [pilot, rest] = with_pilot(items.clone(), images);
        (2 * images * probes) as f64 / (threads * (time(&pilot) + time(&rest) + time(&items))) as f64
    }

    #[test]
    fn many_threads_are_busy() {
        for (images, probes, threads, least) in [
            (10_000, 1, 2, 0.97),
            (10_000, 1, 64, 0.5),
            (10_000, 8, 64, 0.75),
            (10_000, 16, 192, 0.6),
            (50_000, 1, 64, 0.85),
            (50_000, 16, 192, 0.7),
            (1_000_000, 1, 192, 0.9),
        ] {
            let found = busy(images, probes, threads);
            assert!(found >= least, "{images} images, {probes} probes, {threads} threads: {found:.2}");
        }
    }

    #[test]
    fn parts_of_work_items_are_all_of_them() {
        let item = |first: usize| WorkItem { images: first..first + 5, probes: 0..7 };
        for (items, threads) in [(1, 2), (1, 64), (3, 2), (5, 16)] {
            let items: Vec<WorkItem> = (0..items).map(|i| item(5 * i)).collect();
            let pairs = |items: &[WorkItem]| -> Vec<(usize, usize)> {
                let of =
                    |item: &WorkItem| item.probes.clone().map(|probe| (item.images.start, probe)).collect::<Vec<_>>();
                items.iter().flat_map(of).collect()
            };
            assert_eq!(pairs(&cut_by_probes(&items, threads)), pairs(&items), "{threads} threads");
        }
    }

    #[test]
    fn shards_are_many_or_long() {
        // CIFAR-10 and parts of it, and images of 256 by 256.
        for (images, image_len, shard) in [
            (1, 3072, 64),
            (256, 3072, 64),
            (2_000, 3072, 128),
            (10_000, 3072, 256),
            (50_000, 3072, 832),
            (1_000_000, 3072, 1408),
            (50_000, 196_608, 64),
        ] {
            assert_eq!(
                shard_len(images, image_len, AMORTISED_IMAGES, MAX_SHARD),
                shard,
                "{images} images of {image_len}"
            );
        }
    }
}
