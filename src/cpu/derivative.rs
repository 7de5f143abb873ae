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
use crate::found::{MirrorSums, QueryDerivative, merged};
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

    /// The directions of a probe as the dense kernels read them.
    fn for_kernels<P: Pixel>(&self, job: &Job<'_, P>, probe: &Probe) -> dense::derivative::Directions {
        // Differences from z are small where they count; those from a pixel far from all data are not.
        let near = |&z: &f64| if z.abs() > probe.far_from { 0.0 } else { z as f32 };
        let z: Vec<f32> = probe.z.iter().map(near).collect();
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
        let mut found = dense::derivative::derivatives(job, scheduler, |probe| self.for_kernels(job, probe))?;
        let mut flipped = found.split_off(job.queries()).into_iter();
        Ok(found.into_iter().map(|found| joined(job, found, flipped.next())).collect())
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
        let composites = job.pair_up(full::composites(job, scheduler, posteriors)?);
        let mut found: Vec<_> =
            composites.into_iter().map(|composite| QueryDerivative { composite, directions: Vec::new() }).collect();
        for direction in 0..self.count() {
            let values: Vec<Vec<f64>> = job.probes.iter().map(|probe| self.of(job, probe, direction)).collect();
            let (sums, residuals) = full::derivatives(job, scheduler, posteriors, &values)?;
            for ((found, mut sums), residual) in found.iter_mut().zip(job.pair_up(sums)).zip(residuals) {
                subtract(job, &mut sums, &found.composite, &vec![residual; job.plane()], &vec![1; job.plane()]);
                found.directions.push(sums);
            }
        }
        Ok(found)
    }

    fn sparse<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
    ) -> Result<Vec<QueryDerivative>> {
        let composites = sparse::composites(job, scheduler, lists)?;
        let mut found: Vec<_> =
            composites.into_iter().map(|composite| QueryDerivative { composite, directions: Vec::new() }).collect();
        for direction in 0..self.count() {
            let values: Vec<Vec<f64>> = job.probes.iter().map(|probe| self.of(job, probe, direction)).collect();
            for (found, sums) in found.iter_mut().zip(sparse::derivatives(job, scheduler, lists, &values)?) {
                found.directions.push(sums);
            }
        }
        Ok(found)
    }
}

/// The sums of a probe and of its flipped probe, less what rounding left over.
fn joined<P: Pixel>(job: &Job<'_, P>, found: ProbeDerivative, flipped: Option<ProbeDerivative>) -> QueryDerivative {
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
    let composite = pairs.next().unwrap_or_else(|| [zero(), zero()]);
    let mut along: Vec<MirrorSums> = pairs.collect();
    let cover = components.cover();
    for (sums, residuals) in along.iter_mut().zip(&residuals) {
        let mut of_pixels = vec![0.0; job.plane()];
        for (k, residual) in residuals.iter().enumerate() {
            components.runs(k).flatten().for_each(|p| of_pixels[p] += residual);
        }
        subtract(job, sums, &composite, &of_pixels, &cover);
    }
    QueryDerivative { composite, directions: along }
}

/// Takes off `residuals` `[pixel]` times the composite, whose pixels are sums over so many windows.
fn subtract<P: Pixel>(
    job: &Job<'_, P>,
    sums: &mut MirrorSums,
    composite: &MirrorSums,
    residuals: &[f64],
    cover: &[u32],
) {
    let width = job.mirrors[0].width();
    for (((_, y, x), total), sum) in merged(composite).indexed_iter().zip(&mut sums[0]) {
        let p = y * width + x;
        *sum -= residuals[p] * total / f64::from(cover[p]);
    }
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
