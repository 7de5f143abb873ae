//! The scan: one dense pass of energies without a single exponential finds, for every probe and window, the images that can
//! carry weight. Energies are computed in fixed point of sixteen bits where those suffice, else as floats.
//!
//! The bound per window is the least energy of the shard so far, and of whole epochs of shards before it; epochs are cut by
//! the data alone, so the candidates never depend on timing.

use std::ops::Range;

use rayon::prelude::*;

use super::candidates::{Candidates, Collect, CollectFixedPoint, ErrorBound};
use super::fixed_point_scan::{FixedPointProbe, FixedPointTile};
use crate::components::Kind;
use crate::cpu::buffer_pool::BufferPool;
use crate::cpu::dense::group::Group;
use crate::cpu::full;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::{Scheduler, WorkItem, work_items};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::regime::{MAX_CANDIDATES, fixed_point_scan_side};
use crate::simd::U16_LANES;

/// Shards of this many images are long enough for the scan, as the first one is scanned by itself.
const AMORTISED_IMAGES: usize = 64;

/// Finds the candidates of every probe: in fixed point where energies fit sixteen bits, else as floats.
pub(crate) fn candidates<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Candidates>> {
    if let Kind::Full = job.mirrors[0].kind() {
        return full_candidates(job, scheduler);
    }
    let mut found: Vec<Option<Candidates>> = job.probes.iter().map(|_| None).collect();
    if let (Some(side), Some(bytes)) = (fixed_point_scan_side(&job.mirrors[0]), P::bytes(job.pixels)) {
        let pixels = side * side * job.bank.image_shape()[0];
        let prepare = |(i, probe)| Some((i, FixedPointProbe::new(probe, pixels, job.margin(probe))?));
        let (fit, probes): (Vec<usize>, Vec<FixedPointProbe>) =
            job.probes.iter().enumerate().filter_map(prepare).unzip();
        let workspace = || FixedPointScan { tile: FixedPointTile::default(), side, bytes, probes: &probes };
        scan_some(job, scheduler, &fit, |i| probes[i].error_bound, workspace, &mut found)?;
    }
    let is_done = |found: &Option<Candidates>| found.as_ref().is_some_and(Candidates::did_not_saturate);
    let left: Vec<usize> = (0..found.len()).filter(|&i| !is_done(&found[i])).collect();
    scan_some(job, scheduler, &left, |_| ErrorBound::FLOAT, || Group::new(job), &mut found)?;
    Ok(found.into_iter().flatten().collect())
}

/// The candidates on the full window: the images near the least energy, of a probe or of its mirror image.
fn full_candidates<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Candidates>> {
    let energies = full::energies(job, scheduler)?;
    let start = |(probe, energies): (&Probe, &Vec<f32>)| {
        let least = energies.iter().copied().fold(f32::MAX, f32::min);
        Candidates::new(vec![least], job.margin(probe), ErrorBound::FLOAT, MAX_CANDIDATES)
    };
    let mut found: Vec<_> = job.probes.iter().zip(&energies).map(start).collect();
    share_least(job, &mut found);
    scheduler.install(|| {
        let pairs = found.par_iter_mut().zip(&energies);
        pairs.for_each(|(found, energies)| found.collect_full(energies));
    });
    Ok(found)
}

/// Scans for the probes at some `places`, if any, and puts their candidates to the same places in `found`.
fn scan_some<P: Pixel, S: Scan<P> + Send>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    places: &[usize],
    error_bound: impl Fn(usize) -> ErrorBound,
    workspace: impl Fn() -> S + Sync,
    found: &mut [Option<Candidates>],
) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let probes: Vec<Probe> = places.iter().map(|&place| job.probes[place].clone()).collect();
    let scanned = scan(&job.with(&probes), scheduler, error_bound, workspace)?;
    places.iter().zip(scanned).for_each(|(&place, one)| found[place] = Some(one));
    Ok(())
}

/// Finds the candidates of every probe, whose energies `workspace` computes within `error_bound`.
fn scan<P: Pixel, S: Scan<P> + Send>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    error_bound: impl Fn(usize) -> ErrorBound,
    workspace: impl Fn() -> S + Sync,
) -> Result<Vec<Candidates>> {
    let count = job.mirrors[0].count();
    let none = |(i, probe)| Candidates::new(vec![f32::MAX; count], job.margin(probe), error_bound(i), MAX_CANDIDATES);
    let mut found: Vec<_> = job.probes.iter().enumerate().map(none).collect();
    let buffers = BufferPool::new();
    for epoch in epochs(&work_items(job, AMORTISED_IMAGES)) {
        let before: Vec<_> = found.iter().map(Candidates::without_list).collect();
        scheduler.run_items(
            epoch,
            &mut found,
            &workspace,
            |item, space| scan_item(job, item, &before, &buffers, space),
            |found, part| {
                found.merge(&part);
                buffers.release(part);
            },
        )?;
        share_least(job, &mut found);
        scheduler.install(|| found.par_iter_mut().for_each(Candidates::prune));
    }
    Ok(found)
}

/// The candidates of each probe of a work item, given the least energies found `before`.
fn scan_item<P: Pixel>(
    job: &Job<'_, P>,
    item: &WorkItem,
    before: &[Candidates],
    buffers: &BufferPool<Candidates>,
    space: &mut impl Scan<P>,
) -> Vec<Candidates> {
    let limit = 1024 + 16 * job.mirrors[0].count();
    let start = |before: &Candidates| {
        let mut found = buffers.acquire(|| before.without_list());
        found.start_from(before, limit);
        found
    };
    let mut found: Vec<_> = before[item.probes.clone()].iter().map(start).collect();
    for first in item.images.clone().step_by(space.images_at_once()) {
        space.load(job, first, &item.images);
        for (probe, found) in item.probes.clone().zip(&mut found) {
            space.collect(job, probe, first, found);
        }
    }
    found
}

/// Working space of a thread that computes the energies of a few images at once.
trait Scan<P: Pixel> {
    /// How many images.
    fn images_at_once(&self) -> usize;
    /// Takes the images from `first` on, as many as fit and `shard` has.
    fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>);
    /// Collects the candidates of a probe among them.
    fn collect(&mut self, job: &Job<'_, P>, probe: usize, first_image: usize, found: &mut Candidates);
}

impl<P: Pixel> Scan<P> for Group<P> {
    fn images_at_once(&self) -> usize {
        Self::IMAGES
    }

    fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        self.load(job, first, shard);
    }

    fn collect(&mut self, job: &Job<'_, P>, probe: usize, first_image: usize, found: &mut Candidates) {
        self.energies(job, probe, |block| {
            let (energies, count, first_window) = (block.energies, block.count, block.first);
            job.isa.run(Collect { energies, count, first_window, first_image, found });
        });
    }
}

/// The scan in fixed point.
struct FixedPointScan<'a> {
    tile: FixedPointTile,
    side: usize,
    /// All pixels of the bank.
    bytes: &'a [u8],
    /// Those of the job.
    probes: &'a [FixedPointProbe],
}

impl<P: Pixel> Scan<P> for FixedPointScan<'_> {
    fn images_at_once(&self) -> usize {
        U16_LANES
    }

    fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        let (image_len, last) = (job.bank.image_len(), shard.end.min(first + U16_LANES));
        self.tile.load(job.isa, &self.bytes[first * image_len..last * image_len], image_len);
    }

    fn collect(&mut self, job: &Job<'_, P>, probe: usize, first_image: usize, found: &mut Candidates) {
        let components = job.components_of(&job.probes[probe]);
        self.tile.energies(job.isa, components, self.side, &self.probes[probe], |first_window, energies| {
            job.isa.run(CollectFixedPoint { energies, first_window, first_image, found });
        });
    }
}

/// The work items in epochs of shards, each four times as long as the one before: what one epoch finds bounds the search of
/// the next.
fn epochs(items: &[WorkItem]) -> impl Iterator<Item = &[WorkItem]> {
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

/// A query and its mirror image share every softmax, and so the least energy of every window.
fn share_least<P: Pixel>(job: &Job<'_, P>, found: &mut [Candidates]) {
    let windows = &job.mirrors[0];
    let queries = job.probes.iter().filter(|probe| !probe.flipped).count();
    let (forward, flipped) = found.split_at_mut(queries);
    for (forward, flipped) in forward.iter_mut().zip(flipped) {
        for (k, least) in forward.least.iter_mut().enumerate() {
            let twin = &mut flipped.least[windows.mirror_index(k)];
            *least = least.min(*twin);
            *twin = *least;
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4};

    use super::*;
    use crate::bank::Bank;
    use crate::components::Components;

    /// Which of some queries at small sigma on windows of three by three have their energies computed in fixed point.
    fn in_fixed_point(z: &[f64]) -> Vec<bool> {
        let images = Array4::from_shape_fn((20, 3, 6, 6), |(n, c, y, x)| (n * 12 + c * 5 + y * 3 + x) as u8);
        let bank = Bank::from_u8(images.view()).unwrap();
        let windows = Components::square(6, 6, 3).unwrap();
        let (Some(pixels), mirrors) = (images.as_slice(), [windows.clone(), windows]) else { unreachable!("in order") };
        let probe = |(i, &z): (usize, &f64)| {
            let z = Array3::from_elem((3, 6, 6), z);
            Probe::new(&bank, &mirrors[0], z.view(), 0.05, i, false)
        };
        let probes: Vec<Probe> = z.iter().enumerate().map(probe).collect();
        let job = Job::new(&bank, pixels, &mirrors, &probes).unwrap();
        let monitor: &mut crate::monitor::Monitor<'_> = &mut |_, _| Ok(());
        let mut scheduler = Scheduler::new(1, &mirrors[0], 108, monitor).unwrap();
        candidates(&job, &mut scheduler).unwrap().iter().map(|found| found.error_bound.scale > 0.0).collect()
    }

    #[test]
    fn fixed_point_serves_queries_near_the_data_and_only_those() {
        // Images are at -1 to 1: the third query is 0.9 from all of them, the last has values that do not fit.
        assert_eq!(in_fixed_point(&[-0.5, 0.3, 1.9, -0.9, 2.5]), [true, true, false, true, false]);
    }
}
