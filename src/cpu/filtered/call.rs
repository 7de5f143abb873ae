//! `Call`: the queries of a filter's call, and the way of a pass through images, views and queries.

use std::ops::RangeInclusive;

use super::composite::Composite;
use super::means::{Means, TotalMeans};
use super::pass::{Block, Pass};
use super::pieces::{Piece, Pieces};
use super::planes::{self, Planes};
use super::squares::{self, Squares};
use super::sums::Sums;
use crate::bank::Bank;
use crate::cpu::chunks::{exact_chunks, exact_chunks_mut};
use crate::cpu::dense::arithmetic::TILES;
use crate::cpu::dense::group::{load_tiles, tile_penalties};
use crate::cpu::job::{Job, Signals};
use crate::cpu::memory;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::{MIN_PROBES, Scheduler, WorkItem, blocks, items_of_views};
use crate::cpu::tile::{Pixel, PixelLanes, Tile};
use crate::error::Result;
use crate::filter::{Filter, View, Weights};
use crate::monitor::Monitor;
use crate::query::Queries;
use crate::regime::negligible_bits;
use crate::simd::{F32x16, LANES};
use crate::sources::Sources;

/// Images of a group.
const GROUP: usize = TILES * LANES;

/// Values whose responses sum up to less or more than this are left to float64: their sums would leave the range of float32.
/// A small weight beside others does not matter, and neither does one of the precision, beside logits that float32 serves.
const COVER: RangeInclusive<f64> = 1e-12..=1e12;

/// How components compare.
enum Distances {
    Squares(Squares),
    Planes(Box<Planes>),
}

/// What all work items of a call share.
pub(super) struct Call<'a> {
    filter: &'a Filter,
    distances: Distances,
    /// What components of several answers add to; `None` if every component answers for one place.
    response: Option<Sums>,
    pieces: Pieces,
}

/// The working space of a thread.
struct Space<P: Pixel, W, S> {
    loaded: Vec<Tile<P>>,
    /// The whole images with their border.
    bordered: Vec<Tile<P>>,
    /// The loaded images under a view.
    viewed: Vec<Tile<P>>,
    squares: squares::Space,
    planes: planes::Space,
    /// Of the pass.
    pass: W,
    /// Of every probe.
    states: Vec<S>,
}

impl<'a> Call<'a> {
    /// `None` if the filter is of another kind.
    pub(super) fn new(bank: &Bank<'_>, filter: &'a Filter) -> Result<Option<Self>> {
        let (shape, precision, answers) = (filter.shape(), filter.precision(), filter.response());
        let mut response = None;
        if !matches!(answers.weights, Weights::Places) {
            response = Sums::new(answers, shape[2], true);
            if response.is_none() || !filter.cover().iter().all(|cover| COVER.contains(cover)) {
                return Ok(None);
            }
        }
        let distances = match precision.weights {
            Weights::Boxes { side, wraps } if response.is_none() && !answers.per_value && shape[1] * shape[2] > 1 => {
                Distances::Squares(Squares::new(shape, side, wraps)?)
            }
            _ => match Planes::new(filter) {
                Some(planes) if filter.all_views().iter().all(View::is_seen_by_all) => {
                    Distances::Planes(Box::new(planes))
                }
                _ => return Ok(None),
            },
        };
        let surround = match &distances {
            Distances::Squares(squares) => squares.surround(),
            Distances::Planes(_) => Planes::surround(),
        };
        let Some(pieces) = Pieces::new(filter, surround) else { return Ok(None) };
        // Borders have the value of the centre; bytes have no other than that for holes, either.
        let has_holes = pieces.all.iter().any(|piece| piece.has_holes);
        let is_other = has_holes && bank.range().centre != 0.0;
        Ok((!is_other).then_some(Self { filter, distances, response, pieces }))
    }

    /// A query, prepared for how components compare.
    pub(super) fn probe(&self, bank: &Bank<'_>, queries: &Queries<'_>, query: usize, sources: &Sources<'_>) -> Probe {
        let probe = match &self.distances {
            Distances::Squares(squares) => squares.probe(bank, queries, query),
            Distances::Planes(planes) => planes.probe(bank, queries, query),
        };
        probe.among(sources, &queries.atoms().left_out_of(query).into())
    }

    /// How many passes composites take.
    pub(super) fn passes(&self) -> usize {
        if self.response.is_some() { 2 } else { 1 }
    }

    /// Answers of a component that the first pass finds.
    pub(super) fn answers(&self) -> usize {
        let of_place = if self.filter.response().per_value { 1 } else { self.filter.shape()[0] };
        if self.response.is_some() { 0 } else { of_place }
    }

    /// What the first pass finds for every probe; `None` where float32 does not serve.
    pub(super) fn first_pass<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
    ) -> Result<Vec<Option<TotalMeans>>> {
        let (count, answers) = (self.filter.count(), self.answers());
        let mut totals: Vec<_> = job.probes.iter().map(|_| TotalMeans::empty(count, answers)).collect();
        self.pass(job, &Means::pass(count, answers), &mut totals, scheduler)?;
        let serves = |total: &TotalMeans, probe: &Probe| {
            probe.rounding.allows(total.posterior.largest_bits(), probe.logit_scale)
        };
        Ok(totals
            .into_iter()
            .zip(job.probes)
            .map(|(total, probe)| Some(total).filter(|total| serves(total, probe)))
            .collect())
    }

    /// The logarithms of the sums of weights of a probe's components, in nats.
    pub(super) fn log_evidence<P: Pixel>(&self, job: &Job<'_, P>, probe: &Probe, total: &TotalMeans) -> Vec<f64> {
        let left_out: Vec<f64> = probe.energy_left_out(false).collect();
        let constants = match &self.distances {
            Distances::Squares(squares) => squares.sums(&left_out),
            Distances::Planes(planes) => planes.sums(&left_out),
        };
        let nats = |(bits, constant): (f64, f64)| {
            (bits - probe.logit_scale * constant) * std::f64::consts::LN_2 + job.sources.log_prior
        };
        total.posterior.log2_sums().zip(constants).map(nats).collect()
    }

    /// The composites of some probes of a job in the units of the images, `[channel][row][column]`, given what the first pass found
    /// for them; or, with shares, what the images of one of several ranks add to them.
    pub(super) fn finish<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        served: &[usize],
        evidence: &[(&TotalMeans, Option<&[f64]>)],
        scheduler: &mut Scheduler<'_, '_>,
    ) -> Result<Vec<Vec<f64>>> {
        let (unit, centre) = (job.bank.unit(), job.bank.range().centre);
        let mut found = match &self.response {
            Some(response) => {
                let mut found = self.second_pass(job, response, served, evidence, scheduler)?;
                for sums in &mut found {
                    sums.iter_mut().zip(self.filter.cover()).for_each(|(sum, cover)| *sum /= cover * unit);
                }
                found
            }
            None => {
                evidence.iter().map(|(total, shares)| total.means(*shares).map(|mean| mean / unit).collect()).collect()
            }
        };
        for (values, (_, shares)) in found.iter_mut().zip(evidence) {
            match shares {
                None => values.iter_mut().for_each(|value| *value += centre),
                Some(shares) => self.filter.add_centre(centre, shares, values),
            }
        }
        Ok(found)
    }

    /// The weighted sums of centred pixels for some probes.
    fn second_pass<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        response: &Sums,
        served: &[usize],
        evidence: &[(&TotalMeans, Option<&[f64]>)],
        scheduler: &mut Scheduler<'_, '_>,
    ) -> Result<Vec<Vec<f64>>> {
        let probes: Vec<Probe> = served.iter().map(|&i| job.probes[i].clone()).collect();
        let normaliser = |(total, shares): &(&TotalMeans, Option<&[f64]>)| match shares {
            Some(shares) => total.posterior.shared(shares).normaliser(),
            None => total.posterior.normaliser(),
        };
        let normalisers: Vec<_> = evidence.iter().map(normaliser).collect();
        let composite = Composite {
            normalisers: &normalisers,
            response,
            places: self.filter.response().len(self.filter.shape()),
            len: job.bank.image_len(),
            components: self.filter.count(),
        };
        let mut sums = vec![vec![0.0; job.bank.image_len()]; probes.len()];
        self.pass(&job.with(&probes), &composite, &mut sums, scheduler)?;
        Ok(sums)
    }

    /// A scheduler of so many passes, of which the first has so many answers a component; asks for all memory.
    pub(super) fn scheduler<'m, 'b, P: Pixel>(
        &self,
        job: &Job<'_, P>,
        passes: usize,
        answers: usize,
        signals: &'m Signals,
        monitor: &'m mut Monitor<'b>,
    ) -> Result<Scheduler<'m, 'b>> {
        let (image_len, views) = (job.bank.image_len(), self.filter.views());
        let result = (self.filter.count() * (size_of::<f32>() + size_of::<f64>() * (1 + answers))).max(8 * image_len);
        let at_once = MIN_PROBES.min(job.probes.len());
        let workspace = self.workspace::<P>() + 5 * result * at_once;
        let work = (passes * job.probes.len() * job.len()) as u64;
        // An image takes as long as there are views of it.
        let scheduler =
            Scheduler::with_results(work, image_len * views, workspace, result * at_once, signals, monitor)?;
        memory::check_available(scheduler.bytes() + self.pieces.bytes() + 3 * result * job.probes.len())?;
        Ok(scheduler)
    }

    /// Bytes of the working space of a thread, but for what passes keep for probes.
    fn workspace<P: Pixel>(&self) -> usize {
        let [channels, height, width] = self.filter.shape();
        let of_pixels = |pixels: usize| pixels * (channels * size_of::<P::Packed>() + 2 * size_of::<F32x16>());
        let of_distances = match &self.distances {
            Distances::Squares(squares) => squares.workspace(TILES),
            Distances::Planes(planes) => planes.workspace(TILES),
        };
        let places = self.filter.response().len(self.filter.shape());
        let of_response = |response| Composite::workspace(response, self.filter.count(), places);
        let of_second_pass = self.response.as_ref().map_or(0, of_response);
        TILES * (of_pixels(height * width) + 2 * of_pixels(self.pieces.most_pixels())) + of_distances + of_second_pass
    }

    /// A pass over all images, views and probes.
    fn pass<P: Pixel, T: Pass>(
        &self,
        job: &Job<'_, P>,
        pass: &T,
        totals: &mut [T::Total],
        scheduler: &mut Scheduler<'_, '_>,
    ) -> Result<()> {
        let [channels, height, width] = self.filter.shape();
        let space = || Space {
            loaded: (0..TILES).map(|_| Tile::new(channels, height * width)).collect(),
            bordered: (0..TILES).map(|_| Tile::new(channels, 0)).collect(),
            viewed: (0..TILES).map(|_| Tile::new(channels, 0)).collect(),
            squares: squares::Space::default(),
            planes: planes::Space::default(),
            pass: T::Space::default(),
            states: Vec::new(),
        };
        let visit = |item: &WorkItem, space: &mut Space<P, T::Space, T::State>| self.visit(job, pass, item, space);
        let items = items_of_views(job.len(), self.filter.views(), job.probes.len(), GROUP);
        scheduler.run_items(&items, totals, space, visit, |total, part| pass.merge(total, part))?;
        job.check_unchanged()
    }

    fn visit<P: Pixel, T: Pass>(
        &self,
        job: &Job<'_, P>,
        pass: &T,
        item: &WorkItem,
        space: &mut Space<P, T::Space, T::State>,
    ) -> Vec<T::Partial> {
        let negligible = negligible_bits(item.images.len() * self.filter.views()) as f32;
        space.states.resize_with(item.probes.len(), T::State::default);
        space.states.iter_mut().for_each(|state| pass.start(state, negligible));
        for positions in blocks(item.images.clone(), GROUP) {
            let tiles = load_tiles(job, &positions, &mut space.loaded);
            let Space { loaded, bordered, squares, .. } = &mut *space;
            if let Some(piece) = &self.pieces.bordered {
                self.look(job, item, piece, (&loaded[..tiles], bordered), squares);
            }
            for piece in self.pieces.all.iter().take_while(|_| !job.is_stopped()) {
                let Space { loaded, viewed, squares, .. } = &mut *space;
                if piece.part_at.is_none() {
                    self.look(job, item, piece, (&loaded[..tiles], viewed), squares);
                }
                for &by in piece.shifts.iter().take_while(|_| !job.is_stopped()) {
                    for probe in item.probes.clone() {
                        let penalties = tile_penalties(job, &job.probes[probe], &positions);
                        let Space { bordered, viewed, squares, planes, pass: work, states, .. } = &mut *space;
                        let viewed = if piece.part_at.is_some() { &bordered[..tiles] } else { &viewed[..tiles] };
                        pass.start_group(work);
                        let (images, state) = ((viewed, &penalties), &mut states[probe - item.probes.start]);
                        let add = |block: &Block<'_, P>| pass.add(job, probe, block, work, state);
                        let of_probe = &job.probes[probe];
                        match &self.distances {
                            Distances::Squares(of) => of.compare(job, of_probe, (piece, by), images, squares, add),
                            Distances::Planes(of) => of.compare(job, of_probe, images, planes, add),
                        }
                        pass.end_group(job, viewed, work, state);
                    }
                }
            }
        }
        space.states.iter_mut().map(|state| pass.finish(job, state)).collect()
    }

    /// Copies loaded images under a view, and what all probes of a work item share on them.
    fn look<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        item: &WorkItem,
        piece: &Piece,
        (loaded, viewed): (&[Tile<P>], &mut [Tile<P>]),
        space: &mut squares::Space,
    ) {
        let ([channels, height, width], (rows, columns)) = (self.filter.shape(), piece.size());
        let is_expanded = job.probes[item.probes.clone()].iter().any(|probe| probe.regime.is_expanded());
        for (from, to) in loaded.iter().zip(viewed) {
            to.valid = from.valid;
            to.pixels.resize(channels * rows * columns, P::Packed::ZERO);
            let images = exact_chunks(&from.pixels, height * width);
            for (from, to) in images.zip(exact_chunks_mut(&mut to.pixels, rows * columns)) {
                piece.copy(from, to, P::Packed::ZERO);
            }
            if let (Distances::Squares(squares), true) = (&self.distances, is_expanded) {
                squares.prepare(job, piece, to, space);
            }
        }
    }
}
