//! A pass over the images for square windows or masks: its kernel, block, workspace and steps.

use std::ops::Range;

use super::batch::Batch;
use super::call::Call;
use super::components::DeviceKind;
use super::layout::{
    Address, CandidateLists, KernelArg, MaskWorkspace, MirroredMasks, Normaliser, SquareWindows, SquareWorkspace,
    kernel_args,
};
use super::memory::Memory;
use super::module::{Grid, Kernel};
use super::queue::LaunchQueue;
use super::sources::{KernelSource, Precision};
use super::workspace::{MAX_WARPS_PER_BLOCK, MaskNeeds, SquareNeeds, warps_per_block};
use crate::error::Result;

/// What a pass does with the energies of windows, and the arguments of its kernels for that; 0 is the null pointer.
#[derive(Debug, Clone, Copy)]
pub(super) enum PassOutput {
    /// Pass 1: least energy and sum of weights, `[probe][shard][window]`.
    Posteriors { precision: Precision, least: Address, sum: Address },
    /// Least energy `[probe][shard][window]`, from the bound `hint` `[probe][window]` down, and the candidates near it.
    Scan { hint: Address, least: Address, lists: CandidateLists },
    /// Pass 2: the weighted sum of images, `[probe][shard][channel][pixel]`.
    Composites { precision: Precision, normaliser: Normaliser, shard_sums: Address },
}

impl PassOutput {
    fn pass(&self) -> Pass {
        match *self {
            Self::Posteriors { precision, .. } => Pass::Posteriors(precision),
            Self::Scan { .. } => Pass::Scan,
            Self::Composites { precision, .. } => Pass::Composites(precision),
        }
    }

    fn args(&self) -> Vec<KernelArg<'_>> {
        match self {
            Self::Posteriors { least, sum, .. } => kernel_args![least, sum].to_vec(),
            Self::Scan { hint, least, lists } => kernel_args![hint, least, lists].to_vec(),
            Self::Composites { normaliser, shard_sums, .. } => kernel_args![normaliser, shard_sums].to_vec(),
        }
    }
}

/// A pass, whatever it writes to, and the precision of its energies; those of the scan are float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Posteriors(Precision),
    Scan,
    Composites(Precision),
}

impl Pass {
    /// Every pass.
    fn all() -> impl Iterator<Item = Self> {
        let dense = Precision::ALL.into_iter().flat_map(|p| [Self::Posteriors(p), Self::Composites(p)]);
        dense.chain([Self::Scan])
    }

    fn precision(self) -> Precision {
        match self {
            Self::Posteriors(precision) | Self::Composites(precision) => precision,
            Self::Scan => Precision::Single,
        }
    }

    /// Bytes that a warp or block keeps beside sums.
    fn state_bytes(self, call: &Call<'_>) -> usize {
        match self {
            // The least energy, and the sum of weights in two parts.
            Self::Posteriors(precision) => (precision.bytes() + 8) * call.components.count,
            // The least energy and the bound of candidates.
            Self::Scan => 8 * call.components.count,
            Self::Composites(_) => 4 * call.bank.image_len(),
        }
    }

    fn square_needs(self, call: &Call<'_>, square: &SquareWindows) -> SquareNeeds {
        SquareNeeds {
            side: square.side as usize,
            width: call.components.width,
            weights: matches!(self, Self::Composites(_)),
            precision: self.precision(),
            state_bytes: self.state_bytes(call),
        }
    }

    fn mask_needs(self, call: &Call<'_>) -> MaskNeeds {
        MaskNeeds {
            plane: call.bank.plane(),
            masks: call.components.count,
            precision: self.precision(),
            state_bytes: self.state_bytes(call),
        }
    }

    /// Bytes of the slab of a warp or block.
    fn slab_bytes(self, call: &Call<'_>) -> usize {
        let block_bytes = block_bytes(call);
        match &call.components.kind {
            DeviceKind::Square(square) => self.square_needs(call, square).workspace(block_bytes).slab_bytes(),
            DeviceKind::Masks(_) => self.mask_needs(call).workspace(block_bytes).slab_bytes(),
            DeviceKind::Full => 0,
        }
    }
}

/// Shared memory that a block may have.
fn block_bytes(call: &Call<'_>) -> usize {
    call.bank.device.info().shared_bytes_per_block
}

/// Bytes of device memory per query for the slabs of its warps or blocks.
pub(super) fn slab_bytes_per_query(call: &Call<'_>) -> usize {
    let slab = Pass::all().map(|pass| pass.slab_bytes(call)).max().unwrap_or(0);
    call.mirrors() * call.bank.shards() * slab
}

/// How one pass is launched, but for the images of a step.
struct Plan {
    kernel: Kernel,
    windows: PlannedWindows,
    blocks: usize,
    threads: usize,
    shared_bytes: usize,
}

/// What a kernel is told about the windows and its workspace.
enum PlannedWindows {
    Square(SquareWindows, SquareWorkspace),
    Masks(MirroredMasks, MaskWorkspace),
}

impl Plan {
    /// The plan for the windows of the call, none where the only window is the full image.
    fn new(call: &Call<'_>, pass: Pass, probes: usize, slabs: &Memory) -> Result<Option<Self>> {
        match &call.components.kind {
            DeviceKind::Square(square) => Self::square(call, pass, probes, slabs, square).map(Some),
            DeviceKind::Masks(masks) => Self::masks(call, pass, probes, slabs, masks).map(Some),
            DeviceKind::Full => Ok(None),
        }
    }

    /// A warp per probe and shard.
    fn square(call: &Call<'_>, pass: Pass, probes: usize, slabs: &Memory, square: &SquareWindows) -> Result<Self> {
        let name = match pass {
            Pass::Posteriors(_) => "square_posteriors",
            Pass::Scan => "square_scan",
            Pass::Composites(_) => "square_composites",
        };
        let needs = pass.square_needs(call, square);
        let workspace = needs.workspace(block_bytes(call));
        let warps = warps_per_block(workspace.shared_bytes(), block_bytes(call));
        let [energy_ring, weight_ring, row_buffers, state] = workspace.offsets;
        let (slab_len, shared_len) = (workspace.slab_len as u64, workspace.shared_len as i32);
        let slabs = slabs.address();
        let arguments = SquareWorkspace { slabs, slab_len, shared_len, energy_ring, weight_ring, row_buffers, state };
        Ok(Self {
            kernel: call
                .kernel(KernelSource::DenseSquare { narrow: needs.narrow(), precision: needs.precision }, name)?,
            windows: PlannedWindows::Square(*square, arguments),
            blocks: probes.div_ceil(warps),
            threads: 32 * warps,
            shared_bytes: warps * workspace.shared_bytes(),
        })
    }

    /// A block per probe and shard.
    fn masks(call: &Call<'_>, pass: Pass, probes: usize, slabs: &Memory, masks: &MirroredMasks) -> Result<Self> {
        let name = match pass {
            Pass::Posteriors(_) => "mask_posteriors",
            Pass::Scan => "mask_scan",
            Pass::Composites(_) => "mask_composites",
        };
        let needs = pass.mask_needs(call);
        let workspace = needs.workspace(block_bytes(call));
        let [tables, values, state] = workspace.offsets;
        let slab_len = workspace.slab_len as u64;
        let arguments = MaskWorkspace { slabs: slabs.address(), slab_len, tables, masks: values, state };
        Ok(Self {
            kernel: call.kernel(KernelSource::DenseMasks { precision: needs.precision }, name)?,
            windows: PlannedWindows::Masks(*masks, arguments),
            blocks: probes,
            threads: needs.threads_per_block(),
            shared_bytes: workspace.shared_bytes(),
        })
    }

    /// The launch over this many shards.
    fn grid(&self, shards: usize) -> Grid {
        let blocks = [self.blocks as u32, shards as u32, 1];
        Grid { blocks, threads: self.threads as u32, shared_bytes: self.shared_bytes }
    }

    fn args(&self) -> [KernelArg<'_>; 2] {
        match &self.windows {
            PlannedWindows::Square(windows, workspace) => [KernelArg::new(windows), KernelArg::new(workspace)],
            PlannedWindows::Masks(masks, workspace) => [KernelArg::new(masks), KernelArg::new(workspace)],
        }
    }
}

/// Runs a pass over `shards`; `counts` says whether it counts as progress.
pub(super) fn run(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    output: &PassOutput,
    shards: Range<usize>,
    counts: bool,
) -> Result<()> {
    let pass = output.pass();
    let probes = if pass == Pass::Scan { batch.probes } else { batch.dense_probes() };
    let steps = call.steps(shards, batch.probe_count, pass.precision());
    let max_shards = steps.iter().map(Range::len).max().unwrap_or(1);
    // The warps of the last block that have no probe get slabs too.
    let workers = (batch.probe_count + MAX_WARPS_PER_BLOCK - 1) * max_shards;
    let slabs = Memory::new(&queue.stream, workers * pass.slab_bytes(call), "working space")?;
    let Some(plan) = Plan::new(call, pass, batch.probe_count, &slabs)? else { return Ok(()) };
    let work_per_image = match pass.precision() {
        Precision::Single => Some(if counts { batch.probe_count } else { 0 }),
        // Most often a single step has nothing to do, and need not be waited for.
        Precision::Double => (steps.len() > 1).then_some(0),
    };
    call.for_each_step(queue, &steps, work_per_image, |queue, images, step| {
        let args = [kernel_args![images, &probes], &plan.args()[..], &output.args()].concat();
        // SAFETY: these are the arguments of the three kernels; every array of the output has room for all probes, shards
        // and windows or pixels, and the workspace was laid out for this pass.
        unsafe { queue.launch(&plan.kernel, plan.grid(step.len()), &args) }
    })
}
