//! Energies of the full window in float64, for the images that may carry weight.

use crate::cpu::job::Job;
use crate::cpu::probe::Probe;
use crate::cpu::scheduler::{Scheduler, WorkItem};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::regime::EnergyForm;
use crate::simd::{Kernel, Vector};

/// Independent sums of an energy.
const BLOCK: usize = 16;

/// Where energies of float32 round too much for a query, replaces those of its images by their exact distance from the least
/// one, and those of images that cannot carry weight by the largest number. Returns the exact least energy of every query
/// for which it did so.
pub(super) fn refine<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    energies: &mut [Vec<f32>],
) -> Result<Vec<Option<f64>>> {
    let mut refined = vec![None; job.queries()];
    let bounds: Vec<Option<f64>> = (0..job.queries()).map(|query| bound_of(job, query, energies)).collect();
    let queries: Vec<usize> = (0..job.queries()).filter(|&query| bounds[query].is_some()).collect();
    if queries.is_empty() {
        return Ok(refined);
    }
    let probes: Vec<Probe> = job.probes_of(&queries).into_iter().map(Probe::into_double).collect();
    let bounds = job.places_of(&queries).map(|place| bounds[place % job.queries()].unwrap_or(f64::INFINITY));
    let rough: Vec<(&[f32], f64)> =
        job.places_of(&queries).map(|place| energies[place].as_slice()).zip(bounds).collect();
    let listed = job.with(&probes);
    let mut exact: Vec<Vec<f64>> = probes.iter().map(|_| Vec::with_capacity(job.len())).collect();
    scheduler.repeat(job, queries.len());
    scheduler.run(
        &listed,
        &mut exact,
        || (),
        |item, ()| {
            let of_probe = |i: usize| exact_energies(&listed, item, &probes[i], rough[i]);
            item.probes.clone().map(of_probe).collect()
        },
        Vec::extend,
    )?;
    for (i, query) in queries.iter().enumerate() {
        let sides = || (i..exact.len()).step_by(queries.len());
        let least = sides().flat_map(|side| &exact[side]).copied().fold(f64::INFINITY, f64::min);
        for (side, place) in sides().zip((*query..energies.len()).step_by(job.queries())) {
            for (energy, exact) in energies[place].iter_mut().zip(&exact[side]) {
                *energy = (exact - least).min(f64::from(f32::MAX)) as f32;
            }
        }
        refined[*query] = Some(least);
    }
    Ok(refined)
}

/// Below which energies of float32 an image may carry weight, if a query has to be refined: where sigma is small, and where
/// the logit of its best image is too large for float32.
fn bound_of<P: Pixel>(job: &Job<'_, P>, query: usize, energies: &[Vec<f32>]) -> Option<f64> {
    let sides = energies.iter().skip(query).step_by(job.queries());
    let least = f64::from(sides.flatten().copied().fold(f32::MAX, f32::min));
    let Probe { logit_scale, regime, .. } = job.probes[query];
    let bits = logit_scale * least.abs();
    if !regime.sparse && job.sides(query).all(|probe| probe.rounding.allows(bits, logit_scale)) {
        return None;
    }
    let margin = job.cutoff / logit_scale;
    let bounds = job.sides(query).map(|Probe { rounding, .. }| match regime.form {
        EnergyForm::Direct => rounding.near(least, margin),
        // The least energy and every other one may be off.
        EnergyForm::Expanded => least + margin + 2.0 * rounding.worst(),
    });
    Some(bounds.fold(f64::MIN, f64::max))
}

/// The exact energies of the images of a work item for one probe; infinite for those whose energy in float32 is not below
/// `bound`.
fn exact_energies<P: Pixel>(
    job: &Job<'_, P>,
    item: &WorkItem,
    probe: &Probe,
    (rough, bound): (&[f32], f64),
) -> Vec<f64> {
    let energy = |index: usize| {
        if f64::from(rough[index]) > bound || job.is_stopped() {
            return f64::INFINITY;
        }
        let energy = job.isa.run(Energy { image: job.image(index), centre: job.centre, factors: &probe.factors });
        energy + job.sources.below(index) * std::f64::consts::LOG2_E / probe.logit_scale
    };
    item.images.clone().map(energy).collect()
}

/// The sum of `(a - p) (a - q)` over the pixels of an image.
struct Energy<'a, P: Pixel> {
    image: &'a [P],
    centre: f32,
    factors: &'a [[f64; 2]],
}

impl<P: Pixel> Kernel for Energy<'_, P> {
    type Output = f64;

    #[inline(always)]
    fn run<V: Vector>(self) -> f64 {
        let Self { image, centre, factors } = self;
        let (blocks, rest) = image.as_chunks::<BLOCK>();
        let (factor_blocks, factor_rest) = factors.as_chunks::<BLOCK>();
        let term = |pixel: P, [p, q]: [f64; 2]| {
            let a = pixel.number(centre);
            (a - p) * (a - q)
        };
        let mut sums = [0.0; BLOCK];
        for (pixels, factors) in blocks.iter().zip(factor_blocks) {
            for i in 0..BLOCK {
                sums[i] += term(pixels[i], factors[i]);
            }
        }
        for (i, (&pixel, &factors)) in rest.iter().zip(factor_rest).enumerate() {
            sums[i] += term(pixel, factors);
        }
        sums.iter().sum()
    }
}
