//! The scan: one pass over all energies, without an exponential, lists for every probe and window the images that can carry
//! weight. Energies are computed in fixed point of sixteen bits where that suffices, else as floats.
//!
//! The bound of a window follows from the least energy so far in the same shard and in all earlier epochs. The cut into
//! epochs depends on the data alone, so the candidates never depend on timing.

use std::ops::Range;

use rayon::prelude::*;

use super::candidates::{Candidates, Collect, CollectFixedPoint, ErrorBound};
use super::fixed_point_scan::{FixedPointProbe, FixedPointTile};
use crate::cpu::buffer_pool::BufferPool;
use crate::cpu::dense::group::Group;
use crate::cpu::dense::single::Single;
use crate::cpu::images::Images;
use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::{Scheduler, WorkItem, epochs, work_items};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::regime::{fixed_point_scan_side, max_candidates};
use crate::simd::U16_LANES;

/// The scan is better off with shards as short as this: the first shard is an epoch by itself, and bounds the others.
const AMORTISED_IMAGES: usize = 64;

/// Finds the candidates of every probe: in fixed point where energies fit sixteen bits, else as floats.
pub(crate) fn candidates<P: Pixel>(job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<Candidates>> {
    let mut candidates: Vec<Option<Candidates>> = job.probes.iter().map(|_| None).collect();
    // Sixteen bits have no room for priors.
    let side = fixed_point_scan_side(&job.mirrors[0]).filter(|_| !job.sources.has_prior());
    if let (Some(side), Some(_)) = (side, P::bytes(job.pixels)) {
        let pixels = side * side * job.bank.image_shape()[0];
        let prepare = |(i, probe)| Some((i, FixedPointProbe::new(probe, pixels, job.margin(probe))?));
        let (fit, probes): (Vec<usize>, Vec<FixedPointProbe>) =
            job.probes.iter().enumerate().filter_map(prepare).unzip();
        let workspace = || FixedPointScan { tile: FixedPointTile::default(), side, probes: &probes };
        scan_probes(job, scheduler, &fit, |i| probes[i].error_bound, workspace, &mut candidates)?;
    }
    let is_done = |candidates: &Option<Candidates>| candidates.as_ref().is_some_and(Candidates::did_not_saturate);
    let left: Vec<usize> = (0..candidates.len()).filter(|&i| !is_done(&candidates[i])).collect();
    let floats = |i: usize| ErrorBound::of_floats(&job.probes[left[i]].rounding);
    scan_probes(job, scheduler, &left, floats, || Group::<P, Single>::new(job), &mut candidates)?;
    Ok(candidates.into_iter().flatten().collect())
}

/// Scans for the probes of the given `indices`, if any, and writes their candidates to the same indices of `candidates`.
fn scan_probes<P: Pixel, S: Scan<P> + Send>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    indices: &[usize],
    error_bound: impl Fn(usize) -> ErrorBound,
    workspace: impl Fn() -> S + Sync,
    candidates: &mut [Option<Candidates>],
) -> Result<()> {
    if indices.is_empty() {
        return Ok(());
    }
    let probes: Vec<Probe> = indices.iter().map(|&index| job.probes[index].clone()).collect();
    let scanned = scan(&job.with(&probes), scheduler, error_bound, workspace)?;
    indices.iter().zip(scanned).for_each(|(&index, of_probe)| candidates[index] = Some(of_probe));
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
    let limit = max_candidates(count);
    let none = |(i, probe)| Candidates::new(vec![f32::MAX; count], job.margin(probe), error_bound(i), limit);
    let mut candidates: Vec<_> = job.probes.iter().enumerate().map(none).collect();
    let buffers = BufferPool::new();
    for epoch in epochs(&work_items(job, AMORTISED_IMAGES)) {
        if candidates.iter().all(|candidates| candidates.given_up) {
            break;
        }
        let before: Vec<_> = candidates.iter().map(Candidates::without_list).collect();
        scheduler.run_items(
            epoch,
            &mut candidates,
            &workspace,
            |item, space| scan_item(job, item, &before, &buffers, space),
            |candidates, part| {
                candidates.merge(&part);
                buffers.release(part);
            },
        )?;
        job.check_unchanged()?;
        share_least(job, &mut candidates);
        scheduler.install(|| candidates.par_iter_mut().for_each(Candidates::prune));
    }
    Ok(candidates)
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
        let mut candidates = buffers.acquire(|| before.without_list());
        candidates.start_from(before, limit);
        candidates
    };
    let mut candidates: Vec<_> = before[item.probes.clone()].iter().map(start).collect();
    for first in item.images.clone().step_by(space.images_at_once()) {
        space.load(job, first, &item.images);
        for (probe, candidates) in item.probes.clone().zip(&mut candidates) {
            space.collect(job, probe, first, candidates);
        }
    }
    candidates
}

/// Working space of a thread that computes the energies of a few images at once.
trait Scan<P: Pixel> {
    /// How many images.
    fn images_at_once(&self) -> usize;
    /// Loads image `first` and those after it, as many as fit and `shard` has.
    fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>);
    /// Collects the candidates of a probe among them.
    fn collect(&mut self, job: &Job<'_, P>, probe: usize, first_image: usize, candidates: &mut Candidates);
}

impl<P: Pixel> Scan<P> for Group<P, Single> {
    fn images_at_once(&self) -> usize {
        Self::IMAGES
    }

    fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        self.load(job, first, shard);
    }

    fn collect(&mut self, job: &Job<'_, P>, probe: usize, first_image: usize, candidates: &mut Candidates) {
        self.energies(job, probe, |block| {
            let (energies, count, first_window) = (block.energies, block.count, block.first);
            job.isa.run(Collect { energies, count, first_window, first_image, candidates });
        });
    }
}

/// The scan in fixed point.
struct FixedPointScan<'a> {
    tile: FixedPointTile,
    side: usize,
    /// The probes of the job, in fixed point.
    probes: &'a [FixedPointProbe],
}

impl<P: Pixel> Scan<P> for FixedPointScan<'_> {
    fn images_at_once(&self) -> usize {
        U16_LANES
    }

    fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        let images = job.images(first..shard.end.min(first + U16_LANES));
        let bytes: Images<'_, u8> = images.iter().filter_map(|image| P::bytes(image)).collect();
        self.tile.load(job.isa, &bytes, job.bank.image_len());
    }

    fn collect(&mut self, job: &Job<'_, P>, probe: usize, first_image: usize, candidates: &mut Candidates) {
        let (values, images) = (&job.probes[probe], first_image..first_image + U16_LANES);
        let from = values.left_out.partition_point(|&position| (position as usize) < images.start);
        let left_out = values.left_out[from..].iter().map(|&position| position as usize);
        self.tile.leave_out(left_out.take_while(|&position| position < images.end).map(|n| n - images.start));
        let components = job.components_of(values);
        self.tile.energies(job.isa, components, self.side, &self.probes[probe], |first_window, energies| {
            job.isa.run(CollectFixedPoint { energies, first_window, first_image, candidates });
        });
    }
}

/// A query and its mirror image share every softmax, and so the least energy of every window.
fn share_least<P: Pixel>(job: &Job<'_, P>, candidates: &mut [Candidates]) {
    let windows = &job.mirrors[0];
    let (forward, flipped) = candidates.split_at_mut(job.queries());
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
        let (signals, atoms) = (crate::cpu::job::Signals::new(), crate::atoms::Atoms::all());
        let sources = crate::sources::Sources::new(&bank, &atoms);
        let job = Job::new(&bank, pixels, &mirrors, &probes, &sources, &signals).unwrap();
        let monitor: &mut crate::monitor::Monitor<'_> = &mut |_, _| Ok(());
        let mut scheduler = Scheduler::new(1, &mirrors[0], 108, 1, &signals, monitor).unwrap();
        candidates(&job, &mut scheduler).unwrap().iter().map(|candidates| candidates.error_bound.scale > 0.0).collect()
    }

    #[test]
    fn fixed_point_serves_queries_near_the_data_and_only_those() {
        // Images are at -1 to 1: the third query is 0.9 from all of them, the last has values that do not fit.
        assert_eq!(in_fixed_point(&[-0.5, 0.3, 1.9, -0.9, 2.5]), [true, true, false, true, false]);
    }
}
