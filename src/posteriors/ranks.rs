//! What posteriors over the images of one of several ranks say, and what they add to those of all.

#[cfg(feature = "cuda")]
use std::sync::Arc;

use ndarray::{Array2, Array3, Array4, Array5, ArrayView2, ArrayView3, ArrayView4, ArrayView5, Axis, Slice, s};

use super::{Found, Posteriors};
use crate::bank::Bank;
use crate::components::Components;
use crate::cpu::derivative::Derivative;
use crate::cpu::evidence::{Evidence, Pass};
use crate::cpu::memory::check_available;
use crate::cpu::rank_derivative::{GivenMeans, MeanProducts};
use crate::cpu::rank_variance::RankMoments;
#[cfg(feature = "cuda")]
use crate::cuda::DeviceEvidence;
use crate::directions::{Directions, part_of_monitor, parts_of};
use crate::error::{Error, Result};
use crate::found::{MomentLayout, TiltedSums, merged};
use crate::monitor::Monitor;

/// What the images of one of several ranks add to composites and to derivatives; those of all ranks sum up.
#[derive(Debug)]
pub struct RankDerivatives {
    /// To composites, `[query, channel, row, column]`.
    pub composite: Array4<f64>,
    /// To derivatives, `[direction, query, channel, row, column]`.
    pub along: Array5<f64>,
    /// To what rounding leaves over of weights, `[direction, query, row, column]`. Its sum over the ranks times the composite is
    /// to be taken off the derivatives.
    pub residuals: Array4<f64>,
}

impl RankDerivatives {
    pub(crate) fn zeros(directions: (usize, usize, usize, usize, usize)) -> Self {
        let (count, queries, channels, height, width) = directions;
        Self {
            composite: Array4::zeros((queries, channels, height, width)),
            along: Array5::zeros(directions),
            residuals: Array4::zeros((count, queries, height, width)),
        }
    }
}

impl Posteriors {
    /// The posteriors over the images of one of several ranks. `log_shares` `[query, window]` are the logarithms of the shares that
    /// these images have in the sums of weights of all ranks: the log evidence of this rank less that of all, `-inf` for none.
    /// Weights then sum up to these shares, entropies are what these images add to those of all, and the log evidence is that
    /// of all. Variances and derivatives are of no use, as they need the means of all ranks: see [`Posteriors::rank_moments`] and
    /// [`Posteriors::rank_derivatives`].
    ///
    /// Errors: another shape, NaN or a number above zero.
    pub fn shared(&self, log_shares: ArrayView2<'_, f64>) -> Result<Self> {
        let bits = log2_shares(log_shares, self.log_evidence.dim())?;
        let found = match &self.found {
            Found::Cpu(evidence) => {
                Found::Cpu(evidence.iter().zip(&bits).map(|(evidence, bits)| evidence.shared(bits)).collect())
            }
            #[cfg(feature = "cuda")]
            Found::Cuda(engine, evidence) => {
                let of_query = |(evidence, bits): (&DeviceEvidence, &Vec<f64>)| evidence.shared(&self.components, bits);
                Found::Cuda(Arc::clone(engine), evidence.iter().zip(&bits).map(of_query).collect())
            }
        };
        Ok(Self {
            components: self.components.clone(),
            z: self.z.clone(),
            sigma: self.sigma.clone(),
            atoms: self.atoms.clone(),
            flips: self.flips,
            found,
            log_evidence: &self.log_evidence - &log_shares,
        })
    }

    /// What the images of one of several ranks add to composites `[query, channel, row, column]`; see [`Posteriors::shared`].
    ///
    /// Errors: those of that function and of [`crate::Engine::composite`].
    pub(crate) fn contribution(
        &self,
        bank: &Bank<'_>,
        log_shares: ArrayView2<'_, f64>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array4<f64>> {
        let shared = self.shared(log_shares)?;
        let mut added = Array4::zeros(self.z.raw_dim());
        shared.composites(bank, monitor, |query, sums| {
            added.index_axis_mut(Axis(0), query).assign(&self.added(bank, query, &merged(sums), log_shares));
        })?;
        Ok(added)
    }

    /// What sums over windows of centred stored pixels add to the composite of a query, in the units of the images.
    fn added(&self, bank: &Bank<'_>, query: usize, sums: &Array3<f64>, log_shares: ArrayView2<'_, f64>) -> Array3<f64> {
        let (cover, unit, centre) = (self.components.cover(), bank.unit(), bank.range().centre);
        let width = self.components.width();
        let mut out = sums.clone();
        out.indexed_iter_mut().for_each(|((_, y, x), out)| *out /= f64::from(cover[y * width + x]) * unit);
        if centre != 0.0 {
            let shares: Vec<f64> = log_shares.row(query).iter().map(|log| log.exp()).collect();
            let of_pixels = self.components.means_at_pixels(&shares);
            out.indexed_iter_mut().for_each(|((_, y, x), out)| *out += centre * of_pixels[y * width + x]);
        }
        out
    }

    /// The means under these posteriors, which are those of one rank alone, of the inner products of images less z with directions
    /// on every window, `[direction, query, window]`. Arguments and errors are those of [`Posteriors::jvp`].
    ///
    /// Their sum over the ranks, each times its share, is what [`Posteriors::rank_derivatives`] takes.
    pub fn mean_products(
        &self,
        bank: &Bank<'_>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array3<f64>> {
        let (queries, count) = self.log_evidence.dim();
        let mut means = Array3::zeros((directions.len_of(Axis(0)), queries, count));
        self.for_each_part(bank, directions, transposed, monitor, |part, directions, monitor| {
            let mut out = means.slice_axis_mut(Axis(0), part);
            let write = |query: usize, found: Vec<Vec<f64>>| {
                for (mut out, means) in out.index_axis_mut(Axis(1), query).outer_iter_mut().zip(found) {
                    out.iter_mut().zip(means).for_each(|(out, mean)| *out = mean);
                }
            };
            match &self.found {
                Found::Cpu(evidence) => {
                    let pass = MeanProducts { derivative: Derivative { directions: directions.values() } };
                    self.run_directions(bank, evidence, pass, directions, monitor, write)
                }
                #[cfg(feature = "cuda")]
                Found::Cuda(engine, evidence) => self.ask(bank, |question| {
                    engine.mean_products(question, evidence, directions.values(), monitor, write)
                }),
            }
        })?;
        Ok(means)
    }

    /// What the images of one of several ranks add to the composites and to their derivatives, given the mean products over all
    /// ranks `[direction, query, window]`; see [`Posteriors::shared`] and [`Posteriors::mean_products`].
    ///
    /// Errors: those of these functions; means of another shape.
    pub fn rank_derivatives(
        &self,
        bank: &Bank<'_>,
        log_shares: ArrayView2<'_, f64>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        means: ArrayView3<'_, f64>,
        monitor: &mut Monitor<'_>,
    ) -> Result<RankDerivatives> {
        let shared = self.shared(log_shares)?;
        check_means(means, (directions.len_of(Axis(0)), self.log_evidence.dim()))?;
        let mut all = RankDerivatives::zeros(directions.dim());
        self.for_each_part(bank, directions, transposed, monitor, |part, directions, monitor| {
            let means = means.slice_axis(Axis(0), part);
            shared.given_means(bank, directions, means, monitor, |query, found| {
                let composite = self.added(bank, query, &merged(&found.found.composite), log_shares);
                all.composite.index_axis_mut(Axis(0), query).assign(&composite);
                let along = all.along.slice_mut(s![part.start..part.end.unwrap_or(0), query, .., .., ..]);
                let residuals = all.residuals.slice_mut(s![part.start..part.end.unwrap_or(0), query, .., ..]);
                directions.finish_rank(bank, query, &found, along, residuals);
            })
        })?;
        Ok(all)
    }

    /// Does something for every part of the directions that passes are made for.
    fn for_each_part(
        &self,
        bank: &Bank<'_>,
        directions: ArrayView5<'_, f64>,
        transposed: bool,
        monitor: &mut Monitor<'_>,
        mut work: impl FnMut(Slice, &Directions, &mut Monitor<'_>) -> Result<()>,
    ) -> Result<()> {
        let parts = parts_of(&directions);
        for (i, part) in (0..).zip(&parts) {
            let part = Slice::from(part.clone());
            let values = directions.slice_axis(Axis(0), part);
            let of_part = Directions::new(bank, &self.components, &self.sigma, values, transposed)?;
            work(part, &of_part, &mut part_of_monitor(monitor, i, parts.len() as u64))?;
        }
        Ok(())
    }

    /// Composites and derivatives under tilted weights, given the means; on a GPU, in float64, nothing is left over.
    fn given_means(
        &self,
        bank: &Bank<'_>,
        directions: &Directions,
        means: ArrayView3<'_, f64>,
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, TiltedSums),
    ) -> Result<()> {
        match &self.found {
            Found::Cpu(evidence) => {
                let pass = GivenMeans { derivative: Derivative { directions: directions.values() }, means };
                self.run_directions(bank, evidence, pass, directions, monitor, consume)
            }
            #[cfg(feature = "cuda")]
            Found::Cuda(engine, evidence) => self.ask(bank, |question| {
                let plane = self.components.height() * self.components.width();
                let (along, mut consume) = ((directions.values(), means), consume);
                engine.given_means(question, evidence, along, monitor, |query, found| {
                    let residuals = vec![vec![0.0; plane]; found.directions.len()];
                    consume(query, TiltedSums { found, residuals });
                })
            }),
        }
    }

    fn run_directions<T: Pass>(
        &self,
        bank: &Bank<'_>,
        evidence: &[Evidence],
        pass: T,
        directions: &Directions,
        monitor: &mut Monitor<'_>,
        consume: impl FnMut(usize, T::Found),
    ) -> Result<()> {
        let derivative = Derivative { directions: directions.values() };
        let memory = derivative.memory(&self.components, bank.image_len(), self.sigma.len());
        self.run(bank, evidence, pass, memory, monitor, consume)
    }

    /// Moments `[query, number]` of the differences from the composites of all ranks, `denoised` `[query, channel, row, column]`,
    /// or on a GPU from z, as one of several ranks adds to them; see [`Posteriors::shared`]. Their sum over the ranks is what
    /// [`Posteriors::variance_of_moments`] takes.
    ///
    /// Errors: those of that function; composites of another shape; more memory than there is.
    pub fn rank_moments(
        &self,
        bank: &Bank<'_>,
        log_shares: ArrayView2<'_, f64>,
        denoised: ArrayView4<'_, f64>,
        monitor: &mut Monitor<'_>,
    ) -> Result<Array2<f64>> {
        let shared = self.shared(log_shares)?;
        if denoised.dim() != self.z.dim() {
            let (found, expected) = (denoised.shape().to_vec(), format!("{:?}", self.z.shape()));
            return Err(Error::Shape { what: "the composites", found, expected });
        }
        let (unit, centre, [channels, height, width]) = (bank.unit(), bank.range().centre, bank.image_shape());
        // What float32 holds, so that every route and every rank takes off the same.
        let stored = denoised.mapv(|value| f64::from(((value - centre) * unit) as f32));
        let means = stored.to_shape((self.sigma.len(), channels, height * width)).map_err(|_| Error::NotFinite)?;
        let len = MomentLayout::new(&self.components, channels).len();
        check_available(size_of::<f64>().saturating_mul(len).saturating_mul(self.sigma.len()))?;
        let mut all = Array2::zeros((self.sigma.len(), len));
        let write = |query: usize, moments: Vec<f64>| {
            all.row_mut(query).iter_mut().zip(moments).for_each(|(out, moment)| *out = moment);
        };
        match &shared.found {
            Found::Cpu(evidence) => {
                let memory = RankMoments::memory(&self.components, channels, bank.image_len(), self.sigma.len());
                shared.run(bank, evidence, RankMoments { means: means.view() }, memory, monitor, write)?;
            }
            #[cfg(feature = "cuda")]
            Found::Cuda(engine, evidence) => {
                shared.ask(bank, |question| engine.rank_moments(question, evidence, monitor, write))?;
            }
        }
        Ok(all)
    }

    /// How many moments [`Posteriors::rank_moments`] finds for a query on some windows.
    #[must_use]
    pub fn num_moments(bank: &Bank<'_>, components: &Components) -> usize {
        MomentLayout::new(components, bank.image_shape()[0]).len()
    }

    /// What [`Posteriors::variance`] finds over the images of all ranks, whose moments on some windows sum up to these.
    ///
    /// Errors: moments of another shape.
    pub fn variance_of_moments(
        bank: &Bank<'_>,
        components: &Components,
        moments: ArrayView2<'_, f64>,
    ) -> Result<(Array4<f64>, Array3<f64>)> {
        let (unit, [channels, height, width]) = (bank.unit().powi(2), bank.image_shape());
        let (queries, layout) = (moments.len_of(Axis(0)), MomentLayout::new(components, channels));
        check_moments(moments, layout.len())?;
        let mut pixels = Array4::zeros((queries, channels, height, width));
        let mut middles = Array3::zeros((queries, components.count(), channels));
        for (query, moments) in moments.outer_iter().enumerate() {
            let (of_pixels, of_middles) = layout.variances(&moments.to_vec());
            let write = |(out, value): (&mut f64, f64)| *out = value / unit;
            pixels.index_axis_mut(Axis(0), query).iter_mut().zip(of_pixels).for_each(write);
            middles.index_axis_mut(Axis(0), query).iter_mut().zip(of_middles).for_each(write);
        }
        Ok((pixels, middles))
    }
}

/// An error unless there are so many moments of every query.
pub(crate) fn check_moments(moments: ArrayView2<'_, f64>, count: usize) -> Result<()> {
    if moments.len_of(Axis(1)) == count {
        return Ok(());
    }
    let (found, expected) = (moments.shape().to_vec(), format!("[queries, {count}]"));
    Err(Error::Shape { what: "the moments", found, expected })
}

/// An error unless means are `[direction, query, window]`.
pub(crate) fn check_means(
    means: ArrayView3<'_, f64>,
    (directions, (queries, count)): (usize, (usize, usize)),
) -> Result<()> {
    if means.dim() == (directions, queries, count) {
        return Ok(());
    }
    let (found, expected) = (means.shape().to_vec(), format!("{:?}", [directions, queries, count]));
    Err(Error::Shape { what: "the means", found, expected })
}

/// The base-2 logarithms of shares `[query, window]`, of which natural ones are given.
pub(crate) fn log2_shares(log_shares: ArrayView2<'_, f64>, dim: (usize, usize)) -> Result<Vec<Vec<f64>>> {
    if log_shares.dim() != dim {
        let (found, expected) = (log_shares.shape().to_vec(), format!("{:?}", [dim.0, dim.1]));
        return Err(Error::Shape { what: "the shares", found, expected });
    }
    if let Some((index, &value)) = log_shares.indexed_iter().find(|(_, share)| share.is_nan() || **share > 0.0) {
        return Err(Error::LogShare { value, index: [index.0, index.1] });
    }
    Ok(log_shares.outer_iter().map(|row| row.iter().map(|log| log * std::f64::consts::LOG2_E).collect()).collect())
}
