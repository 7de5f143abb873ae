//! Sums over the pixels of every image with the values of probes: energies, or inner products.

use std::ops::Range;

use super::image_panel::{ImagePanel, QueryPanel};
use super::pixel_panel::{PixelPanel, vectors};
use super::single_query::Energies;
use super::{PANEL_FROM, images_at_once};
use crate::cpu::job::Job;
use crate::cpu::scheduler::{Scheduler, WorkItem, probes_of_items};
use crate::cpu::tile::Pixel;
use crate::error::Result;
use crate::simd::{F32x16, LANES};

/// The values of a probe in vectors, padded with zeros as in a panel, and the form of its sums (`dense::residuals`).
pub(super) type FormValues = (Vec<F32x16>, u8);

/// A probe's values in vectors.
pub(super) fn in_vectors(values: &[f32]) -> Vec<F32x16> {
    let mut lanes = vec![F32x16::ZERO; vectors(values.len())];
    for (lanes, values) in lanes.iter_mut().zip(values.chunks(LANES)) {
        lanes.0[..values.len()].copy_from_slice(values);
    }
    lanes
}

/// Per probe the sums of all images, with its values.
pub(super) fn sums_of_images<P: Pixel>(
    job: &Job<'_, P>,
    scheduler: &mut Scheduler<'_, '_>,
    values: &[FormValues],
) -> Result<Vec<Vec<f32>>> {
    let blocks: Vec<Block<'_>> = probes_of_items(job).map(|probes| Block::of(job, values, probes)).collect();
    let mut sums: Vec<Vec<f32>> = job.probes.iter().map(|_| Vec::with_capacity(job.len())).collect();
    scheduler.run(
        job,
        &mut sums,
        ImagePanel::default,
        |item, panel| {
            let block = blocks.partition_point(|block| block.probes.end <= item.probes.start);
            blocks[block].sums(job, item, panel)
        },
        Vec::extend,
    )?;
    Ok(sums)
}

/// The values of the probes of a work item, laid out for the kernels.
struct Block<'a> {
    probes: Range<usize>,
    values: &'a [FormValues],
    /// Of all probes together, unless they are fewer than [`PANEL_FROM`].
    panels: Vec<QueryPanel>,
}

impl<'a> Block<'a> {
    fn of<P: Pixel>(job: &Job<'_, P>, values: &'a [FormValues], probes: Range<usize>) -> Self {
        let values = &values[probes.clone()];
        let mut panels = Vec::new();
        if probes.len() >= PANEL_FROM {
            let parts: Vec<_> = PixelPanel::parts(job.bank.image_len()).collect();
            let forms: Vec<_> = values.iter().map(|(values, form)| (values.as_slice(), *form)).collect();
            panels = QueryPanel::all(&forms, &parts);
        }
        Self { probes, values, panels }
    }

    /// The sums of the images of a work item for each of its probes.
    fn sums<P: Pixel>(&self, job: &Job<'_, P>, item: &WorkItem, panel: &mut ImagePanel<P>) -> Vec<Vec<f32>> {
        if self.panels.is_empty() {
            return self.single_sums(job, item);
        }
        let (image_len, probes) = (job.bank.image_len(), self.probes.len());
        let mut sums = vec![F32x16::ZERO; item.images.len().div_ceil(LANES) * probes];
        // The values of a part of all probes stay in the second-level cache while the images are read.
        for part in PixelPanel::parts(image_len) {
            for (images, sums) in images_at_once(item, LANES).zip(sums.chunks_exact_mut(probes)) {
                if job.is_stopped() {
                    break;
                }
                let (first, images) = (images.start, job.images(images));
                if part.start == 0 {
                    job.check_images(&images, first);
                }
                panel.load(job.isa, &images, job.centre, image_len, part.clone());
                for queries in &self.panels {
                    panel.add(job.isa, queries, sums);
                }
            }
        }
        let of_probe = |probe: usize| {
            let mut of_images: Vec<f32> = sums[probe..].iter().step_by(probes).flat_map(|sums| sums.0).collect();
            of_images.truncate(item.images.len());
            of_images
        };
        (0..probes).map(of_probe).collect()
    }

    /// The same for one or two probes.
    fn single_sums<P: Pixel>(&self, job: &Job<'_, P>, item: &WorkItem) -> Vec<Vec<f32>> {
        let centre = job.centre;
        let mut sums: Vec<_> = self.values.iter().map(|_| vec![0.0; item.images.len()]).collect();
        for images in images_at_once(item, LANES).take_while(|_| !job.is_stopped()) {
            let place = images.start - item.images.start..images.end - item.images.start;
            let (first, images) = (images.start, job.images(images));
            job.check_images(&images, first);
            for ((values, form), sums) in self.values.iter().zip(&mut sums) {
                let (images, form, out) = (&images[..], *form, &mut sums[place.clone()]);
                job.isa.run(Energies { images, centre, values, form, out });
            }
        }
        sums
    }
}
