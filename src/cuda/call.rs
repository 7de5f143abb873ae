//! `Call`: what all batches and passes of a call share, and their way through the images.

use std::ops::Range;

use super::bank::DeviceBank;
use super::components::DeviceComponents;
use super::layout::Images;
use super::module::Kernel;
use super::penalties::Priors;
use super::queue::LaunchQueue;
use super::sources::{KernelSource, Precision};
use crate::atoms::Atoms;
use crate::bank::Bank;
use crate::error::Result;

/// Most pixels of images times probes in one step: some tenths of a second on a large GPU.
const MAX_STEP_PIXELS: usize = 1 << 37;

/// How much smaller steps in float64 are: so many times as long may a GPU that has little of it take.
const DOUBLE_COST: usize = 16;

/// Where the queries of a call and their results are on the device, and their noise levels.
#[derive(Debug, Clone, Copy)]
pub struct DeviceQueries<'a> {
    /// Address of z, `[batch, channels, height, width]`, contiguous.
    pub z: u64,
    /// Whether z is float64; else it is float32.
    pub z_is_f64: bool,
    /// Address of the denoised images, of the same shape.
    pub out: u64,
    /// Whether they are float64; else they are float32.
    pub out_is_f64: bool,
    /// Noise level per query.
    pub sigma: &'a [f64],
    /// Which images count.
    pub atoms: &'a Atoms,
}

/// A call's arguments on the device.
pub(super) struct Call<'a> {
    /// The images on the host, for tiles that are not on the device yet.
    pub(super) host_bank: &'a Bank<'a>,
    /// The images that count.
    pub(super) bank: &'a DeviceBank,
    pub(super) components: &'a DeviceComponents,
    pub(super) queries: DeviceQueries<'a>,
    /// The priors of the images, if they have any.
    pub(super) priors: Option<Priors>,
    /// Whether every image also counts flipped left to right.
    pub(super) flips: bool,
}

impl Call<'_> {
    /// Probes per query: the query and, with flips, its mirror image.
    pub(super) fn mirrors(&self) -> usize {
        if self.flips { 2 } else { 1 }
    }

    /// A kernel for the bank's kind of pixels.
    pub(super) fn kernel(&self, source: KernelSource, name: &str) -> Result<Kernel> {
        self.bank.device.kernel(source, self.bank.pixels, name)
    }

    /// The steps of a pass over `shards` for this many probes, with energies of a precision.
    pub(super) fn steps(&self, shards: Range<usize>, probes: usize, precision: Precision) -> Vec<Range<usize>> {
        let cost = match precision {
            Precision::Single => 1,
            Precision::Double => DOUBLE_COST,
        };
        self.bank.steps(shards, MAX_STEP_PIXELS / (cost * probes * self.bank.plane()))
    }

    /// Runs `launch` for each of `steps`, with its images on the device. With `work_per_image`, each is also a step of the
    /// queue, which may wait there and asks the monitor; otherwise it ends with the next that is.
    pub(super) fn for_each_step(
        &self,
        queue: &mut LaunchQueue<'_, '_>,
        steps: &[Range<usize>],
        work_per_image: Option<usize>,
        mut launch: impl FnMut(&mut LaunchQueue<'_, '_>, &Images, &Range<usize>) -> Result<()>,
    ) -> Result<()> {
        for step in steps {
            let resident = self.bank.on_device(self.host_bank, &queue.stream, step)?;
            launch(queue, &resident.images, step)?;
            if let Some(work) = work_per_image {
                queue.end_step(work * resident.images.count as usize)?;
            }
        }
        Ok(())
    }
}
