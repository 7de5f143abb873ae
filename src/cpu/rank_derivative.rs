//! Derivatives of composites over the images of several ranks, on every route: each rank tells the means of products on its own
//! windows, and with the means of all ranks what its images add.

use ndarray::{ArrayView3, Axis, s};

use super::call::Call;
use super::dense::{self, arithmetic::Arithmetic};
use super::derivative::{Derivative, joined, near};
use super::evidence::Pass;
use super::full::{self, ImagePosterior};
use super::job::Job;
use super::probe::Probe;
use super::scheduler::Scheduler;
use super::sparse::{self, WeighedLists};
use super::tile::Pixel;
use crate::error::Result;
use crate::found::TiltedSums;
use crate::posterior::Posterior;

/// Of every query the means of the products of images less z with its directions, `[direction][window]`, under the posteriors of
/// this rank alone.
pub(crate) struct MeanProducts<'a> {
    pub(crate) derivative: Derivative<'a>,
}

impl MeanProducts<'_> {
    /// Takes the products of z off means `[query][window]` along a direction.
    fn less_z<P: Pixel>(&self, job: &Job<'_, P>, direction: usize, means: &mut [Vec<f64>]) {
        for (probe, means) in job.probes.iter().zip(means) {
            let of_z = products_of_z(job, probe, &self.derivative.of(job, probe, direction));
            means.iter_mut().zip(of_z).for_each(|(mean, of_z)| *mean -= of_z);
        }
    }

    /// Means `[query][window]` along each direction, as those of each query.
    fn by_query<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        mut along: impl FnMut(usize) -> Result<Vec<Vec<f64>>>,
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        let mut found = vec![Vec::new(); job.queries()];
        for direction in 0..self.derivative.count() {
            let mut means = along(direction)?;
            self.less_z(job, direction, &mut means);
            found.iter_mut().zip(means).for_each(|(found, means): (&mut Vec<_>, _)| found.push(means));
        }
        Ok(found)
    }
}

/// The products of z and a direction on every window, of z as the dense kernels take it off.
fn products_of_z<P: Pixel>(job: &Job<'_, P>, probe: &Probe, direction: &[f64]) -> Vec<f64> {
    let products: Vec<f64> = near(probe).iter().zip(direction).map(|(&z, v)| f64::from(z) * v).collect();
    let of_pixel = |p: usize| products[p..].iter().step_by(job.plane()).sum();
    job.mirrors[0].sums(&(0..job.plane()).map(of_pixel).collect::<Vec<f64>>())
}

impl Pass for MeanProducts<'_> {
    type Found = Vec<Vec<f64>>;

    fn passes(&self, _call: &Call<'_, '_>) -> usize {
        self.derivative.count().max(1)
    }

    fn dense<P: Pixel, A: Arithmetic>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        _posteriors: &[&Posterior],
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        let directions: Vec<_> = job.probes.iter().map(|probe| self.derivative.for_kernels(job, probe)).collect();
        Ok(dense::derivative::evidence_and_means::<P, A>(job, scheduler, &directions)?.1)
    }

    fn full<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        self.by_query(job, |direction| {
            let values = self.derivative.of_probes(job, direction);
            let products = full::Products::new(job, scheduler, posteriors, &values)?;
            Ok(products.means(job, posteriors).into_iter().map(|mean| vec![mean]).collect())
        })
    }

    fn sparse<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
    ) -> Result<Vec<Vec<Vec<f64>>>> {
        self.by_query(job, |direction| {
            sparse::mean_products(job, scheduler, lists, &self.derivative.of_probes(job, direction))
        })
    }
}

/// What the images of a rank, whose evidence is that of its shares, add to composites and derivatives, given the means
/// `[direction, query, window]` over all ranks.
pub(crate) struct GivenMeans<'a> {
    pub(crate) derivative: Derivative<'a>,
    pub(crate) means: ArrayView3<'a, f64>,
}

impl GivenMeans<'_> {
    /// Those of the queries of a job along a direction, `[query][window]`, of products that those of z are not taken off.
    fn with_z<P: Pixel>(&self, job: &Job<'_, P>, direction: usize) -> Vec<Vec<f64>> {
        let of_query = |probe: &Probe| {
            let of_z = products_of_z(job, probe, &self.derivative.of(job, probe, direction));
            self.means.slice(s![direction, probe.query, ..]).iter().zip(of_z).map(|(mean, of_z)| mean + of_z).collect()
        };
        job.probes[..job.queries()].iter().map(of_query).collect()
    }
}

impl Pass for GivenMeans<'_> {
    type Found = TiltedSums;

    fn passes(&self, call: &Call<'_, '_>) -> usize {
        self.derivative.passes(call)
    }

    fn dense<P: Pixel, A: Arithmetic>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&Posterior],
    ) -> Result<Vec<TiltedSums>> {
        let directions: Vec<_> = job.probes.iter().map(|probe| self.derivative.for_kernels(job, probe)).collect();
        let of_query = |probe: &Probe| {
            let of_query = self.means.index_axis(Axis(1), probe.query);
            of_query.outer_iter().map(|means| means.to_vec()).collect()
        };
        let means: dense::derivative::Means = job.probes[..job.queries()].iter().map(of_query).collect();
        let found = dense::derivative::given_means::<P, A>(job, scheduler, posteriors, &means, &directions)?;
        Ok(joined(job, found).collect())
    }

    fn full<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        posteriors: &[&ImagePosterior],
    ) -> Result<Vec<TiltedSums>> {
        let means = |direction, _: &full::Products| self.with_z(job, direction).concat();
        self.derivative.full_sums(job, scheduler, posteriors, means)
    }

    fn sparse<P: Pixel>(
        &self,
        job: &Job<'_, P>,
        scheduler: &mut Scheduler<'_, '_>,
        lists: &[&WeighedLists],
    ) -> Result<Vec<TiltedSums>> {
        self.derivative.sparse_sums(job, scheduler, lists, |direction| Some(self.with_z(job, direction)))
    }
}
