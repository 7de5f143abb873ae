//! The scan: one dense pass of energies without a single exponential finds, for every probe and window, the images that can
//! carry weight. Energies are read in whole numbers of sixteen bits where those do, else as floats.
//!
//! The bound per window is the least energy of the shard so far, and of whole epochs of shards before it; epochs are cut by
//! the data alone, so the candidates never depend on timing.

use std::ops::Range;

use rayon::prelude::*;

use super::candidates::{Candidate, Candidates, Reading, collect, collect_words};
use super::full;
use super::job::{Group, Job};
use super::probe::Probe;
use super::rounds::{Item, Rounds, items};
use super::simd::WORDS;
use super::spare::Spare;
use super::tile::Pixel;
use super::words::{self, WordProbe, WordTile};
use crate::error::Result;
use crate::windows::Kind;

/// Most candidates kept for a probe: bounds the memory of all lists in flight.
const LONGEST: usize = 1 << 18;

/// So many images make a shard of the scan long enough; the first one is scanned by itself.
const LONG: usize = 64;

/// Bytes of the longest list.
pub(super) const LARGEST_LIST: usize = LONGEST * size_of::<Candidate>();

/// Finds the candidates of every probe: in whole numbers where energies fit those, else as floats.
pub(super) fn candidates<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Candidates>> {
    if let Kind::Full = job.views[0].kind() {
        return full_candidates(job, rounds);
    }
    let mut found: Vec<Option<Candidates>> = job.probes.iter().map(|_| None).collect();
    if let (Some(side), Some(bytes)) = (words::side(&job.views[0]), P::bytes(job.pixels)) {
        let pixels = side * side * job.bank.image_shape()[0];
        let word = |(i, probe)| Some((i, WordProbe::new(probe, pixels, job.margin(probe))?));
        let (fit, probes): (Vec<usize>, Vec<WordProbe>) = job.probes.iter().enumerate().filter_map(word).unzip();
        let space = || Words { tile: WordTile::default(), side, bytes, probes: &probes };
        scan_some(job, rounds, &fit, |i| probes[i].reading, space, &mut found)?;
    }
    let trusted = |found: &Option<Candidates>| found.as_ref().is_some_and(Candidates::trusted);
    let left: Vec<usize> = (0..found.len()).filter(|&i| !trusted(&found[i])).collect();
    scan_some(job, rounds, &left, |_| Reading::FLOATS, || Group::new(job), &mut found)?;
    Ok(found.into_iter().flatten().collect())
}

/// The candidates on the full window.
fn full_candidates<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Candidates>> {
    let none = |probe| Candidates::new(vec![f32::MAX], job.margin(probe), Reading::FLOATS, LONGEST);
    let mut found: Vec<_> = job.probes.iter().map(none).collect();
    full::candidates(job, rounds, &mut found, |found| share_least(job, found))?;
    Ok(found)
}

/// Puts the candidates of the probes at some `places`, if any, to their places in `found`.
fn scan_some<P: Pixel, S: Scan<P> + Send>(
    job: &Job<'_, P>,
    rounds: &mut Rounds<'_, '_>,
    places: &[usize],
    reading: impl Fn(usize) -> Reading,
    space: impl Fn() -> S + Sync,
    found: &mut [Option<Candidates>],
) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let probes: Vec<Probe> = places.iter().map(|&place| job.probes[place].clone()).collect();
    let scanned = scan(&job.with(&probes), rounds, reading, space)?;
    places.iter().zip(scanned).for_each(|(&place, one)| found[place] = Some(one));
    Ok(())
}

/// Finds the candidates of every probe, whose energies `space` reads as `reading` says.
fn scan<P: Pixel, S: Scan<P> + Send>(
    job: &Job<'_, P>,
    rounds: &mut Rounds<'_, '_>,
    reading: impl Fn(usize) -> Reading,
    space: impl Fn() -> S + Sync,
) -> Result<Vec<Candidates>> {
    let count = job.views[0].count();
    let none = |(i, probe)| Candidates::new(vec![f32::MAX; count], job.margin(probe), reading(i), LONGEST);
    let mut found: Vec<_> = job.probes.iter().enumerate().map(none).collect();
    let spare = Spare::new();
    for epoch in epochs(&items(job, LONG)) {
        let before: Vec<_> = found.iter().map(Candidates::without_list).collect();
        rounds.run_items(
            epoch,
            &mut found,
            &space,
            |item, space| scan_item(job, item, &before, &spare, space),
            |found, part| {
                found.merge(&part);
                spare.keep(part);
            },
        )?;
        share_least(job, &mut found);
        rounds.install(|| found.par_iter_mut().for_each(Candidates::prune));
    }
    Ok(found)
}

/// The candidates of each of an item's probes, given the least energies found `before`.
fn scan_item<P: Pixel>(
    job: &Job<'_, P>,
    item: &Item,
    before: &[Candidates],
    spare: &Spare<Candidates>,
    space: &mut impl Scan<P>,
) -> Vec<Candidates> {
    let limit = 1024 + 16 * job.views[0].count();
    let start = |before: &Candidates| {
        let mut found = spare.take_or(|| before.without_list());
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

/// Working space of a thread that reads energies of a few images at once.
trait Scan<P: Pixel> {
    /// How many images.
    fn images_at_once(&self) -> usize;
    /// Takes the images from `first` on, as many as `shard` has and fit.
    fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>);
    /// Collects the candidates of a probe among them.
    fn collect(&mut self, job: &Job<'_, P>, probe: usize, first: usize, found: &mut Candidates);
}

impl<P: Pixel> Scan<P> for Group<P> {
    fn images_at_once(&self) -> usize {
        Self::IMAGES
    }

    fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        self.load(job, first, shard);
    }

    fn collect(&mut self, job: &Job<'_, P>, probe: usize, first: usize, found: &mut Candidates) {
        self.energies(job, probe, |part| {
            collect(job.isa, part.energies, part.count, part.first, first, found);
        });
    }
}

/// Energies in whole numbers.
struct Words<'a> {
    tile: WordTile,
    side: usize,
    /// All pixels of the bank.
    bytes: &'a [u8],
    /// Those of the job.
    probes: &'a [WordProbe],
}

impl<P: Pixel> Scan<P> for Words<'_> {
    fn images_at_once(&self) -> usize {
        WORDS
    }

    fn load(&mut self, job: &Job<'_, P>, first: usize, shard: &Range<usize>) {
        let (image_len, last) = (job.bank.image_len(), shard.end.min(first + WORDS));
        self.tile.load(job.isa, &self.bytes[first * image_len..last * image_len], image_len);
    }

    fn collect(&mut self, job: &Job<'_, P>, probe: usize, first: usize, found: &mut Candidates) {
        let windows = job.view(&job.probes[probe]);
        self.tile.energies(job.isa, windows, self.side, &self.probes[probe], |start, energies| {
            collect_words(job.isa, energies, start, first, found);
        });
    }
}

/// Items in runs of shards, each four times as long as all before it: what one run finds bounds the next one's search.
fn epochs(items: &[Item]) -> impl Iterator<Item = &[Item]> {
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
    let windows = &job.views[0];
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
    use crate::windows::Windows;

    /// Which of some queries at small sigma on windows of three by three have their energies read in whole numbers.
    fn in_words(z: &[f64]) -> Vec<bool> {
        let images = Array4::from_shape_fn((20, 3, 6, 6), |(n, c, y, x)| (n * 12 + c * 5 + y * 3 + x) as u8);
        let bank = Bank::from_u8(images.view()).unwrap();
        let windows = Windows::square(6, 6, 3).unwrap();
        let (Some(pixels), views) = (images.as_slice(), [windows.clone(), windows]) else { unreachable!("in order") };
        let probe = |(i, &z): (usize, &f64)| {
            let z = Array3::from_elem((3, 6, 6), z);
            Probe::new(&bank, &views[0], z.view(), 0.05, i, false)
        };
        let probes: Vec<Probe> = z.iter().enumerate().map(probe).collect();
        let job = Job::new(&bank, pixels, &views, &probes).unwrap();
        let monitor: &mut crate::composite::Monitor<'_> = &mut |_, _| Ok(());
        let mut rounds = Rounds::new(1, &views[0], 108, monitor).unwrap();
        candidates(&job, &mut rounds).unwrap().iter().map(|found| found.reading.unit > 0.0).collect()
    }

    #[test]
    fn whole_numbers_serve_queries_near_the_data_and_only_those() {
        // Images are at -1 to 1: the third query is 0.9 from all of them, the last has values that do not fit.
        assert_eq!(in_words(&[-0.5, 0.3, 1.9, -0.9, 2.5]), [true, true, false, true, false]);
    }
}
