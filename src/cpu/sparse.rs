//! Small sigma: a scan finds the few images that carry weight on each window, and only those are weighed, in `f64`.
//!
//! The scan is one dense pass of energies without a single exponential, in whole numbers of sixteen bits where those do,
//! else in floats. Its bound per window is the least energy of the shard so far, and of whole epochs of shards before it;
//! epochs are cut by the data alone, so the candidates, like the result, never depend on timing. Where too many images
//! carry weight for a list to pay, the caller falls back on the dense passes.

use std::ops::Range;

use ndarray::Array3;
use rayon::prelude::*;

use super::candidates::{ByWindow, Candidate, Candidates, Reading, collect, collect_words};
use super::full;
use super::job::{Group, Job};
use super::patches::Patches;
use super::probe::Probe;
use super::rounds::{Item, Rounds, items};
use super::simd::WORDS;
use super::spare::Spare;
use super::tile::Pixel;
use super::words::{self, WordProbe, WordTile};
use crate::error::Result;
use crate::windows::{Kind, Windows};

/// Pieces into which the exact sums of a query are cut, to share them among threads.
const CHUNKS: usize = 16;

/// Queries weighed before the monitor is asked again.
const AT_ONCE: usize = 8;

/// Most candidates kept for a probe: bounds the memory of all lists in flight.
const LONGEST: usize = 1 << 18;

/// Candidates of a window below `2^-LIGHT` of its best weight, all together, are left out in the end.
const LIGHT: f64 = 24.0;

/// Pixels gathered at once from a window's candidates.
const PATCHES: usize = 1 << 16;

/// Candidates lie anywhere in the data, so that the caches are asked for this many before they are read.
const AHEAD: usize = 6;

/// So many images make a shard of the scan long enough; the first one is scanned by itself.
const LONG: usize = 64;

/// Bytes of the longest list.
pub(super) const LARGEST_LIST: usize = LONGEST * size_of::<Candidate>();

/// The sums of a query and of its mirror image; none where lists did not pay.
pub(super) type Sums = Option<[Array3<f64>; 2]>;

/// Per query the weighted sums of centred stored pixels of its probe and of its flipped probe, `[channel, row, column]`.
/// The probes of flipped queries follow all others, in the same order.
pub(super) fn sums<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Sums>> {
    let found = candidates(job, rounds)?;
    let queries = job.probes.iter().filter(|probe| !probe.flipped).count();
    let (forward, flipped) = found.split_at(queries);
    let weigh = |query: usize| {
        let sides = [Some(&forward[query]), flipped.get(query)];
        let few = sides.into_iter().flatten().all(|found| pays(job, found));
        few.then(|| Pair::new(job, query, queries, sides).sums(job))
    };
    let mut sums = Vec::with_capacity(queries);
    for start in (0..queries).step_by(AT_ONCE) {
        let some = start..queries.min(start + AT_ONCE);
        sums.extend(rounds.install(|| some.into_par_iter().map(weigh).collect::<Vec<_>>()));
        // Where a list was weighed, the second of two passes is not needed.
        let spared = sums[start..].iter().flatten().count() * job.probes.len() / queries;
        rounds.skip(spared * job.bank.len())?;
    }
    Ok(sums)
}

/// Finds the candidates of every probe: in whole numbers where energies fit those, else as floats.
fn candidates<P: Pixel>(job: &Job<'_, P>, rounds: &mut Rounds<'_, '_>) -> Result<Vec<Candidates>> {
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

/// Whether weighing the listed images alone, in `f64`, is cheaper than a dense pass over all of them; never mind a list
/// that takes a few milliseconds, never one that takes a tenth of a second.
fn pays<P: Pixel>(job: &Job<'_, P>, found: &Candidates) -> bool {
    const CHEAP: usize = 1 << 22;
    const DEAR: usize = 1 << 24;
    let windows = &job.views[0];
    let pixels: usize = found.list.iter().map(|candidate| windows.pixels(candidate.window as usize)).sum();
    !found.given_up && pixels <= (job.bank.len() * job.plane() / 6).clamp(CHEAP, DEAR)
}

/// One query, its mirror image if flips count, and the candidates of both.
struct Pair<'a> {
    sides: [Option<Side<'a>>; 2],
}

/// A probe and its candidates.
struct Side<'a> {
    probe: &'a Probe,
    windows: &'a Windows,
    least: &'a [f32],
    reading: Reading,
    found: ByWindow,
}

impl<'a> Pair<'a> {
    /// Query number `query` of `queries`.
    fn new<P: Pixel>(job: &Job<'a, P>, query: usize, queries: usize, found: [Option<&'a Candidates>; 2]) -> Self {
        let side = |side: usize| {
            let (found, probe) = (found[side]?, &job.probes[query + side * queries]);
            let (least, reading) = (&found.least, found.reading);
            Some(Side { probe, windows: job.view(probe), least, reading, found: found.by_window() })
        };
        Self { sides: [side(0), side(1)] }
    }

    fn sums<P: Pixel>(&self, job: &Job<'_, P>) -> [Array3<f64>; 2] {
        let count = job.views[0].count();
        let chunk = count.div_ceil(CHUNKS);
        let parts: Vec<_> = (0..CHUNKS)
            .into_par_iter()
            .map(|i| self.sums_of_windows(job, (i * chunk).min(count)..((i + 1) * chunk).min(count)))
            .collect();
        let mut sums = [0, 1].map(|_| Array3::zeros(job.bank.image_shape()));
        for part in parts {
            sums.iter_mut().zip(part).filter(|(_, part)| !part.is_empty()).for_each(|(sums, part)| *sums += &part);
        }
        sums
    }

    /// The sums of some windows; those of a side that is missing are empty.
    fn sums_of_windows<P: Pixel>(&self, job: &Job<'_, P>, windows: Range<usize>) -> [Array3<f64>; 2] {
        let mut spaces = self.sides.each_ref().map(|side| side.as_ref().map(|side| Space::new(job, side)));
        for k in windows {
            let twin = [k, job.views[0].mirror_index(k)];
            let mut spaces: Vec<_> = spaces.iter_mut().zip(twin).filter_map(|(s, k)| Some((s.as_mut()?, k))).collect();
            let mut least = f64::INFINITY;
            for (space, k) in &mut spaces {
                least = least.min(space.measure(job, *k));
            }
            let total: f64 = spaces.iter_mut().map(|(space, _)| space.weigh(least)).sum();
            for (space, _) in spaces {
                space.add(job, total);
            }
        }
        spaces.map(|space| space.map_or_else(|| Array3::zeros([0; 3]), |space| space.sums))
    }
}

/// One side on one window after the other.
struct Space<'a, P> {
    side: &'a Side<'a>,
    sums: Array3<f64>,
    runs: Vec<Range<usize>>,
    images: Vec<u32>,
    /// The squared distances of the images, then their weights.
    weights: Vec<f64>,
    patches: Patches<P>,
    patch: Vec<f64>,
}

impl<'a, P: Pixel> Space<'a, P> {
    fn new(job: &Job<'_, P>, side: &'a Side<'a>) -> Self {
        let sums = Array3::zeros(job.bank.image_shape());
        let (runs, images, weights, patch) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { side, sums, runs, images, weights, patches: Patches::default(), patch }
    }

    /// Moves to window `k` and computes the distances of its candidates; returns the least.
    fn measure(&mut self, job: &Job<'_, P>, k: usize) -> f64 {
        let Side { probe, windows, least, reading, found } = self.side;
        self.runs.clear();
        self.runs.extend(windows.runs(k));
        self.patches.start(job.bank.image_shape()[0] * windows.pixels(k));
        // So few are left that many light ones can weigh less together.
        let found = found.of(k);
        let bits = job.cutoff.min(LIGHT + (found.len().max(1) as f64).log2());
        let bound = reading.bound(least[k], (bits / probe.rate) as f32);
        self.images.clear();
        self.images.extend(found.iter().filter(|(_, energy)| *energy < bound).map(|&(image, _)| image));
        self.patches.gather(&probe.z, job.plane(), &self.runs, &mut self.patch);
        self.weights.clear();
        for first in (0..self.images.len()).step_by(self.at_once()) {
            self.load(job, first);
            self.patches.distances(job.isa, &self.patch, &mut self.weights);
        }
        self.weights.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Images whose patches are held at once.
    fn at_once(&self) -> usize {
        (PATCHES / self.patch.len()).max(1)
    }

    /// Gathers the patches of the images from `first` on.
    fn load(&mut self, job: &Job<'_, P>, first: usize) {
        self.patches.clear();
        let images = &self.images[first..];
        for (i, &image) in images.iter().enumerate().take(self.at_once()) {
            if let Some(&later) = images.get(i + AHEAD) {
                self.patches.prefetch(job.image(later as usize), job.plane(), &self.runs);
            }
            self.patches.push(job.image(image as usize), job.plane(), &self.runs);
        }
    }

    /// Turns distances into weights relative to the least distance of both sides, and returns their sum.
    fn weigh(&mut self, least: f64) -> f64 {
        let rate = self.side.probe.rate;
        self.weights.iter_mut().for_each(|weight| *weight = (rate * (least - *weight)).exp2());
        self.weights.iter().sum()
    }

    /// Adds the mean of the images under their weights, which sum to `total` over both sides.
    fn add(&mut self, job: &Job<'_, P>, total: f64) {
        self.patch.fill(0.0);
        let (scale, at_once) = (1.0 / total, self.at_once());
        self.weights.iter_mut().for_each(|weight| *weight *= scale);
        for first in (0..self.images.len()).step_by(at_once) {
            if self.images.len() > at_once {
                self.load(job, first);
            }
            self.patches.add_weighted(job.isa, &self.weights[first..], &mut self.patch);
        }
        let sums = self.sums.as_slice_mut().unwrap_or_default();
        self.patches.scatter_add(&self.patch, sums, job.plane(), &self.runs);
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;
    use crate::bank::Bank;

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
        // Images are at -1 to 0.9: the third query is 1.6 from the nearest, the last has values that do not fit.
        assert_eq!(in_words(&[-0.5, 0.3, 1.9, -0.9, 2.5]), [true, true, false, true, false]);
    }
}
