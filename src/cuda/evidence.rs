//! `DeviceEvidence`: what pass 1 finds for a query on the device, in float64 whatever the noise level.

use ndarray::Array3;

use super::batch::Batch;
use super::call::Call;
use super::context::Stream;
use super::far::FarPixel;
use super::layout::{Evidence, ShardEvidence, kernel_args};
use super::memory::Memory;
use super::module::Grid;
use super::planes::{PlaneNormaliser, Planes};
use super::queue::LaunchQueue;
use crate::components::Components;
use crate::error::Result;
use crate::found::MirrorSums;

/// What pass 1 finds for a query, on the host. Windows are numbered as its probes see them.
#[derive(Debug, Clone)]
pub(crate) struct DeviceEvidence {
    /// The least energies, `[mirror][window]`.
    least: Vec<f64>,
    /// The reciprocals of the sums of weights relative to them, `[mirror][window]`.
    scale: Vec<f64>,
    /// The base-2 logarithms of the sums of weights, `[window]`, for energies as the kernels form them.
    pub(super) log2_sums: Vec<f64>,
    /// The entropies in powers of two, `[window]`.
    pub(super) entropies: Vec<f64>,
    /// The values of z that are far from the data.
    pub(super) far: Vec<FarPixel>,
    /// What weights sum up to, `[window]`: one, unless other ranks have images, too.
    shares: Vec<f64>,
}

impl DeviceEvidence {
    /// The evidence of one of several ranks, of all of whose weights its images have a share on every window: its base-2
    /// logarithm. Entropies are what these images add to those of all.
    pub(crate) fn shared(&self, components: &Components, log2_shares: &[f64]) -> Self {
        let (count, shares) = (log2_shares.len(), log2_shares.iter().map(|log| log.exp2()).collect::<Vec<f64>>());
        let window = |at: usize| if at < count { at } else { components.mirror_index(at - count) };
        let part_of = |(entropy, (share, log)): (&f64, (&f64, &f64))| {
            if *share > 0.0 { share * (entropy - log) } else { 0.0 }
        };
        Self {
            least: self.least.clone(),
            scale: self.scale.iter().enumerate().map(|(at, scale)| scale * shares[window(at)]).collect(),
            log2_sums: self.log2_sums.iter().zip(log2_shares).map(|(sum, log)| sum - log).collect(),
            entropies: self.entropies.iter().zip(shares.iter().zip(log2_shares)).map(part_of).collect(),
            far: self.far.clone(),
            shares,
        }
    }

    /// What the weights of the windows at every pixel sum up to.
    pub(super) fn shares_at_pixels(&self, components: &Components) -> Vec<f64> {
        let means = components.means_at_pixels(&self.shares);
        means.iter().zip(components.cover()).map(|(mean, cover)| mean * f64::from(cover)).collect()
    }
}

/// Bytes of device memory per query, besides planes.
pub(super) fn bytes_per_query(call: &Call<'_>) -> usize {
    let (shards, windows) = (call.bank.shards(), call.components.count);
    8 * windows * (call.mirrors() * (3 * shards + 2) + 2)
}

/// Pass 1 for the queries of a batch, whose values far from the data are `far`.
pub(super) fn find(
    call: &Call<'_>,
    queue: &mut LaunchQueue<'_, '_>,
    batch: &Batch,
    far: &[&[FarPixel]],
) -> Result<Vec<DeviceEvidence>> {
    let stream = &queue.stream.clone();
    let windows = call.components.count;
    let of_probes = |per_window: usize| {
        Memory::new(stream, batch.probe_count * windows * per_window * 8, "the evidence of windows")
    };
    let shards = call.bank.shards();
    let [least, sum, above] = [of_probes(shards)?, of_probes(shards)?, of_probes(shards)?];
    let in_shards = ShardEvidence { least: least.address(), sum: sum.address(), above: above.address() };
    let planes = Planes::new(call, stream, batch, false)?;
    let kernel = planes.kernel("plane_evidence")?;
    planes.for_each_slice(queue, |queue, slice| {
        planes.energies(queue, slice)?;
        let (count, energies) = (windows as i32, planes.windows.address_ref());
        let args: &[_] = kernel_args![&slice.images, &batch.probes, &count, energies, &in_shards];
        // SAFETY: the arrays have room for every probe, shard and window.
        unsafe { queue.launch(&kernel, planes.grid_of_shards(windows, slice), args) }
    })?;
    let found = [of_probes(1)?, of_probes(1)?, of_probes(1)?, of_probes(1)?];
    let [least, scale, log2_sums, entropies] = [0, 1, 2, 3].map(|i| found[i].address());
    let merged = Evidence { least, scale, log2_sums, entropies };
    let (shards, count, mirror_columns) = (shards as i32, windows as i32, call.components.mirror_columns as i32);
    let args: &[_] = kernel_args![&batch.probes, &in_shards, &shards, &count, &mirror_columns, &merged];
    let Grid { blocks: [blocks, ..], threads, shared_bytes } = Grid::over(windows);
    let grid = Grid { blocks: [blocks, batch.queries as u32, 1], threads, shared_bytes };
    // SAFETY: as above; there is a place for every probe and window.
    unsafe { queue.launch(&planes.kernel("merge_evidence")?, grid, args)? };
    queue.wait()?;
    let read = |i: usize, probes: usize| -> Result<Vec<f64>> {
        let mut values = vec![0.0; probes * windows];
        found[i].read(&mut values, "the evidence of windows")?;
        Ok(values)
    };
    let (least, scale) = (read(0, batch.probe_count)?, read(1, batch.probe_count)?);
    let (log2_sums, entropies) = (read(2, batch.queries)?, read(3, batch.queries)?);
    let of_query = |query: usize| {
        let of_mirrors = |values: &[f64]| {
            let probes = (query..batch.probe_count).step_by(batch.queries);
            probes.flat_map(|probe| values[probe * windows..(probe + 1) * windows].iter().copied()).collect()
        };
        let own = query * windows..(query + 1) * windows;
        DeviceEvidence {
            least: of_mirrors(&least),
            scale: of_mirrors(&scale),
            log2_sums: log2_sums[own.clone()].to_vec(),
            entropies: entropies[own].to_vec(),
            far: far[query].to_vec(),
            shares: vec![1.0; windows],
        }
    };
    Ok((0..batch.queries).map(of_query).collect())
}

/// Queries of a batch whose evidence is known.
pub(super) struct Known<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) batch: &'a Batch,
    /// The windows on the host.
    pub(super) components: &'a Components,
    /// Indices of the queries in the call.
    pub(super) rows: &'a [usize],
    pub(super) evidence: Vec<&'a DeviceEvidence>,
    pub(super) normaliser: PlaneNormaliser,
}

impl<'a> Known<'a> {
    /// Copies what the kernels need of the `evidence` of all queries of a call to the device.
    pub(super) fn new(
        call: &'a Call<'a>,
        stream: &Stream,
        batch: &'a Batch,
        components: &'a Components,
        rows: &'a [usize],
        evidence: &'a [DeviceEvidence],
    ) -> Result<Self> {
        let evidence: Vec<&DeviceEvidence> = rows.iter().map(|&row| &evidence[row]).collect();
        let windows = call.components.count;
        let upload = |of: fn(&DeviceEvidence) -> &Vec<f64>| {
            let of_mirror = |mirror: usize| {
                evidence.iter().flat_map(move |evidence| &of(evidence)[mirror * windows..(mirror + 1) * windows])
            };
            let values: Vec<f64> = (0..call.mirrors()).flat_map(of_mirror).copied().collect();
            Memory::copy_of(stream, &values, "the evidence of windows")
        };
        let [least, scale] = [upload(|evidence| &evidence.least)?, upload(|evidence| &evidence.scale)?];
        Ok(Self { call, batch, components, rows, evidence, normaliser: PlaneNormaliser { least, scale } })
    }

    /// Sums `[probe][channel][pixel]` of queries and their mirror images, as pairs.
    pub(super) fn pair_up(&self, sums: &[f64]) -> Vec<MirrorSums> {
        let ([_, channels, height, width], len) = (self.call.bank.shape, self.call.bank.image_len());
        let of_probe = |probe: usize| {
            let sums = sums.get(probe * len..(probe + 1) * len);
            let at = |(c, y, x)| sums.map_or(0.0, |sums| sums[(c * height + y) * width + x]);
            Array3::from_shape_fn((channels, height, width), at)
        };
        (0..self.batch.queries).map(|query| [of_probe(query), of_probe(query + self.batch.queries)]).collect()
    }
}
