//! Derivatives of composites along directions, on every route, and the composites themselves.
//!
//! With the weights `w_kn` of a window and `b_kn` the sum of its pixels of image n times the direction, the derivative at a
//! pixel d is `1 / sigma^2` times the mean over the windows at d of the covariance under `w_k` of `b_k` and `x(d)`. Its
//! transpose is the same map between directions divided by the number of windows that hold a pixel.

use ndarray::{Array3, ArrayView4, Axis, s};

use super::call::{Call, Memory, Work};
use super::dense::derivative::ProbeDerivative;
use super::dense::{self, arithmetic::Arithmetic};
use super::evidence::{Pass, sparse_queries};
use super::full::{self, ImagePosterior};
use super::job::Job;
use super::probe::Probe;
use super::scheduler::Scheduler;
use super::sparse::{self, WeighedLists};
use super::tile::Pixel;
use crate::components::{Components, Kind};
use crate::error::Result;
use crate::found::{QueryDerivative, TiltedSums};
use crate::posterior::Posterior;

/// Derivatives along `directions` `[direction, query, channel, pixel]`, in stored units or any other.
pub(crate) struct Derivative<'a> {
    pub(crate) directions: ArrayView4<'a, f64>,
}

impl Derivative<'_> {
    /// A direction of a probe, `[channel][pixel]`.
    pub(crate) fn of<P: Pixel>(&self, job: &Job<'_, P>, probe: &Probe, direction: usize) -> Vec<f64> {
        let width = job.mirrors[0].width();
        let of_query = self.directions.slice(s![direction, probe.query, .., ..]);
        let mut values: Vec<f64> = of_query.iter().copied().collect();
        if probe.flipped {
            values.chunks_exact_mut(width).for_each(<[f64]>::reverse);
        }
        values
    }

    /// The same of every probe.
    pub(crate) fn of_probes<P: Pixel>(&self, job: &Job<'_, P>, direction: usize) -> Vec<Vec<f64>> {
        job.probes.iter().map(|probe| self.of(job, probe, direction)).collect()
    }

    /// The directions of a probe as the dense kernels read them.
    pub(crate) fn for_kernels<P: Pixel>(&self, job: &Job<'_, P>, probe: &Probe) -> dense::derivative::Directions {
        let z = near(probe);
        let values = |direction| {
            let direction = self.of(job, probe, direction);
            z.iter().copied().chain(direction.iter().map(|&v| -v as f32)).collect()
        };
        (0..self.count()).map(values).collect()
    }

    /// The derivatives of every query on the dense route, with its evidence found along the way.
    fn of_all_images<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
    ) -> Result<Vec<QueryDerivative>> {
        let found = dense::derivative::derivatives(job, scheduler, |probe| self.for_kernels(job, probe))?;
        Ok(joined(job, found).map(|found| found.without_residuals(&job.mirrors[0])).collect())
    }

    /// Those of every query on the full route; `means` gives the means of the products along a direction, `[query]`.
    pub(crate) fn full_sums<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
        means: impl Fn(usize, &full::Products) -> Vec<f64>,
    ) -> Result<Vec<TiltedSums>> {
        let composites = job.pair_up(full::composites(job, scheduler, posteriors)?);
        let mut found: Vec<_> = composites.into_iter().map(TiltedSums::new).collect();
        for direction in 0..self.count() {
            let products = full::Products::new(job, scheduler, posteriors, &self.of_probes(job, direction))?;
            let means = means(direction, &products);
            let (sums, residuals) = full::derivatives(job, scheduler, posteriors, products, &means)?;
            for ((found, sums), residual) in found.iter_mut().zip(job.pair_up(sums)).zip(residuals) {
                found.push(sums, vec![residual; job.plane()]);
            }
        }
        Ok(found)
    }

    /// Those of every query on the sparse route, where rounding leaves nothing over; `means` gives the means of the products along
    /// a direction, `[query][window]`, if they are not those of the lists.
    pub(crate) fn sparse_sums<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
        means: impl Fn(usize) -> Option<Vec<Vec<f64>>>,
    ) -> Result<Vec<TiltedSums>> {
        let composites = sparse::composites(job, scheduler, lists)?;
        let mut found: Vec<_> = composites.into_iter().map(TiltedSums::new).collect();
        for direction in 0..self.count() {
            let (values, means) = (self.of_probes(job, direction), means(direction));
            let sums = sparse::derivatives(job, scheduler, lists, &values, means.as_deref())?;
            found.iter_mut().zip(sums).for_each(|(found, sums)| found.push(sums, vec![0.0; job.plane()]));
        }
        Ok(found)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.directions.len_of(Axis(0))
    }

    /// Bytes that they take besides those of a composite.
    pub(crate) fn memory(&self, components: &Components, image_len: usize, queries: usize) -> Memory {
        let (of_image, of_windows) = (size_of::<f64>() * image_len, size_of::<f64>() * components.count());
        let all = self.count() + 1;
        Memory {
            per_query: 2 * all * (4 * of_image + 2 * of_windows),
            per_probe: all * (2 * of_image + 6 * of_windows) + 16 * of_windows,
            results: 2 * all * queries * of_image,
        }
    }
}

impl Pass for Derivative<'_> {
    type Found = QueryDerivative;

    fn passes(&self, call: &Call<'_, '_>) -> usize {
        match call.mirrors[0].kind() {
            Kind::Full => 1 + 2 * self.count(),
            Kind::Square { .. } | Kind::Masks(_) if call.may_list() => (1 + self.count()).max(2),
            Kind::Square { .. } | Kind::Masks(_) => 2,
        }
    }

    fn dense<P: Pixel, A: Arithmetic>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        _posteriors: &[&Posterior],
    ) -> Result<Vec<QueryDerivative>> {
        // The means of the products take a pass over all energies anyway, which finds the posterior along the way.
        self.of_all_images(job, scheduler)
    }

    fn full<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
    ) -> Result<Vec<QueryDerivative>> {
        let found = self.full_sums(job, scheduler, posteriors, |_, products| products.means(job, posteriors))?;
        Ok(found.into_iter().map(|found| found.without_residuals(&job.mirrors[0])).collect())
    }

    fn sparse<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
    ) -> Result<Vec<QueryDerivative>> {
        let found = self.sparse_sums(job, scheduler, lists, |_| None)?;
        Ok(found.into_iter().map(|found| found.found).collect())
    }
}

/// z of a probe, from which the dense kernels take differences: those are small where they count, but not from a pixel far
/// from all data, which is zero here.
pub(crate) fn near(probe: &Probe) -> Vec<f32> {
    probe.z.iter().map(|&z| if z.abs() > probe.far_from { 0.0 } else { z as f32 }).collect()
}

/// The sums of every query, of its probe and of its flipped probe, which follow all others.
pub(crate) fn joined<P: Pixel>(job: &Job<'_, P>, mut found: Vec<ProbeDerivative>) -> impl Iterator<Item = TiltedSums> {
    let mut flipped = found.split_off(job.queries()).into_iter();
    found.into_iter().map(move |found| joined_pair(job, found, flipped.next()))
}

fn joined_pair<P: Pixel>(job: &Job<'_, P>, found: ProbeDerivative, flipped: Option<ProbeDerivative>) -> TiltedSums {
    let (components, zero) = (&job.mirrors[0], || Array3::zeros(job.bank.image_shape()));
    let mut residuals = found.residuals;
    let (flipped_sums, of_flipped) = flipped.map_or_else(Default::default, |flipped| (flipped.sums, flipped.residuals));
    for (residuals, of_flipped) in residuals.iter_mut().zip(of_flipped) {
        residuals.iter_mut().enumerate().for_each(|(k, sum)| *sum += of_flipped[components.mirror_index(k)]);
    }
    let mut flipped_sums = flipped_sums.into_iter();
    let mut pairs = found
        .sums
        .into_iter()
        .map(|sums| [job.in_shape(sums), flipped_sums.next().map_or_else(zero, |sums| job.in_shape(sums))]);
    let mut all = TiltedSums::new(pairs.next().unwrap_or_else(|| [zero(), zero()]));
    for (sums, residuals) in pairs.zip(&residuals) {
        let mut of_pixels = vec![0.0; job.plane()];
        for (k, residual) in residuals.iter().enumerate() {
            components.runs(k).flatten().for_each(|p| of_pixels[p] += residual);
        }
        all.push(sums, of_pixels);
    }
    all
}

/// Evidence and derivatives in one call.
pub(crate) struct WholeDerivative<'a> {
    pub(crate) derivative: Derivative<'a>,
}

impl Work for WholeDerivative<'_> {
    type Found = QueryDerivative;

    fn passes(&self, call: &Call<'_, '_>) -> usize {
        let finds_evidence = matches!(call.mirrors[0].kind(), Kind::Full) || call.may_list();
        self.derivative.passes(call) + usize::from(finds_evidence)
    }

    fn memory(&self, call: &Call<'_, '_>) -> Memory {
        self.derivative.memory(&call.mirrors[0], call.bank.image_len(), call.queries.len())
    }

    fn run<P: Pixel>(&self, job: &Job<'_, P>, scheduler: &mut Scheduler<'_, '_>) -> Result<Vec<QueryDerivative>> {
        let mut found: Vec<Option<QueryDerivative>> = (0..job.queries()).map(|_| None).collect();
        let sparse = sparse_queries(job);
        if !sparse.is_empty() {
            let probes = job.probes_of(&sparse);
            let lists = sparse::evidence(&job.with(&probes), scheduler)?;
            let (queries, lists): (Vec<usize>, Vec<_>) =
                sparse.iter().zip(&lists).filter_map(|(&query, lists)| Some((query, lists.as_ref()?))).unzip();
            if !queries.is_empty() {
                let probes = job.probes_of(&queries);
                let of_queries = self.derivative.sparse(&job.with(&probes), scheduler, &lists)?;
                queries.into_iter().zip(of_queries).for_each(|(query, of_query)| found[query] = Some(of_query));
            }
        }
        let rest: Vec<usize> = (0..found.len()).filter(|&query| found[query].is_none()).collect();
        if !rest.is_empty() {
            let probes = job.probes_of(&rest);
            let job = job.with(&probes);
            let of_rest = match job.mirrors[0].kind() {
                Kind::Full => {
                    let posteriors = full::evidence(&job, scheduler)?;
                    self.derivative.full(&job, scheduler, &posteriors.iter().collect::<Vec<_>>())
                }
                Kind::Square { .. } | Kind::Masks(_) => self.derivative.of_all_images(&job, scheduler),
            }?;
            rest.into_iter().zip(of_rest).for_each(|(query, of_query)| found[query] = Some(of_query));
        }
        Ok(found.into_iter().flatten().collect())
    }
}
