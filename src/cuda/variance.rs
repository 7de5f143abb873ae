//! Variances of pixels under posteriors, over planes: per pixel the mean over the windows at it, and per window that of its
//! middle pixel. The mean of every window is needed by itself, since it is squared.

use std::ops::Range;

use super::call::Call;
use super::context::Stream;
use super::evidence::Known;
use super::layout::{WindowPixels, kernel_args};
use super::memory::Memory;
use super::module::Grid;
use super::planes::{Factor, Planes, Slice, bytes_of_sums};
use super::queue::LaunchQueue;
use crate::components::Components;
use crate::error::Result;
use crate::found::{MirrorSums, QueryVariance, merged};

/// Most pixels of windows whose means are kept at once, per query; more take further passes.
const MAX_PIXELS: usize = 1 << 20;

/// Bytes of device memory per query, besides planes.
pub(super) fn bytes_per_query(call: &Call<'_>) -> usize {
    let pixels = (call.components.mean_pixels * call.components.count).min(MAX_PIXELS) + call.components.count;
    call.mirrors() * (bytes_of_sums(call) + 8 * call.bank.channels() * pixels) + 16 * pixels
}

/// Windows in ranges whose pixels are kept at once.
pub(super) fn parts_of(components: &Components) -> Vec<Range<usize>> {
    let (mut parts, mut start, mut pixels) = (Vec::new(), 0, 0);
    for k in 0..components.count() {
        pixels += components.pixels(k);
        if pixels > MAX_PIXELS && k > start {
            parts.push(start..k);
            (start, pixels) = (k, components.pixels(k));
        }
    }
    parts.push(start..components.count());
    parts
}

/// The moments of the queries of a batch, of pixels less z.
struct BatchMoments {
    parts: Vec<Range<usize>>,
    /// First ones, `[part][query][channel][pixel of a window]`.
    means: Vec<Vec<Vec<Vec<f64>>>>,
    /// Second ones of middle pixels, `[query][channel][window]`.
    middles: Vec<Vec<Vec<f64>>>,
    /// Second ones, summed over the windows at a pixel.
    squares: Vec<MirrorSums>,
}

impl BatchMoments {
    fn new(known: &Known<'_>, queue: &mut LaunchQueue<'_, '_>) -> Result<Self> {
        let stream = &queue.stream.clone();
        let components = known.components;
        let planes = Planes::new(known.call, stream, known.batch, false)?;
        let squares = planes.new_sums(stream)?;
        let middles = Moments::new(known, stream, (0..components.count()).map(|k| (k, components.middle(k))), true)?;
        let parts = parts_of(components);
        let mut means = Vec::with_capacity(parts.len());
        for (i, part) in parts.iter().enumerate() {
            let pixels = part.clone().flat_map(|k| components.runs(k).flatten().map(move |p| (k, p)));
            let of_part = Moments::new(known, stream, pixels, false)?;
            planes.for_each_slice(queue, |queue, slice| {
                planes.weights(queue, slice, &known.normaliser)?;
                if i == 0 {
                    planes.composite(queue, slice, &planes.windows, Factor::AboveZSquared, &squares)?;
                    middles.add(known, &planes, queue, slice)?;
                }
                of_part.add(known, &planes, queue, slice)
            })?;
            means.push(of_part.read(known, queue)?);
        }
        let middles = middles.read(known, queue)?;
        let squares = known.pair_up(&planes.totals(queue, &squares)?);
        Ok(Self { parts, means, middles, squares })
    }
}

/// The variances of the queries of a batch.
pub(super) fn run(known: &Known<'_>, queue: &mut LaunchQueue<'_, '_>) -> Result<Vec<QueryVariance>> {
    let BatchMoments { parts, means, middles, squares } = BatchMoments::new(known, queue)?;
    let (components, channels) = (known.components, known.call.bank.channels());
    let of_query = |(query, sums): (usize, MirrorSums)| {
        let mut found = QueryVariance { sums, middle: Vec::with_capacity(components.count() * channels) };
        for (part, means) in parts.iter().zip(&means) {
            less_squared_means(components, part.clone(), &means[query], &middles[query], &mut found);
        }
        found
    };
    Ok(squares.into_iter().enumerate().map(of_query).collect())
}

/// The moments of the queries of a batch, as [`crate::found::MomentLayout`] has them.
pub(super) fn rank_moments(known: &Known<'_>, queue: &mut LaunchQueue<'_, '_>) -> Result<Vec<Vec<f64>>> {
    let BatchMoments { means, middles, squares, .. } = BatchMoments::new(known, queue)?;
    // From `[channel][entry]` to `[entry][channel]`.
    let by_entry = |of_channels: &[Vec<f64>]| -> Vec<f64> {
        (0..of_channels[0].len()).flat_map(|entry| of_channels.iter().map(move |values| values[entry])).collect()
    };
    let of_query = |(query, squares): (usize, &MirrorSums)| {
        let mut all: Vec<f64> = merged(squares).iter().copied().collect();
        for of_part in &means {
            all.extend(by_entry(&of_part[query]));
        }
        all.extend(by_entry(&middles[query]));
        all
    };
    Ok(squares.iter().enumerate().map(of_query).collect())
}

/// Takes the squares of the means of some windows off the second moments, and adds the variances of their middle pixels.
/// `means` are `[channel][pixel of a window]`, `middles` the second moments of middle pixels `[channel][window]`.
fn less_squared_means(
    components: &Components,
    windows: Range<usize>,
    means: &[Vec<f64>],
    middles: &[Vec<f64>],
    found: &mut QueryVariance,
) {
    let (width, mut at) = (components.width(), 0);
    for k in windows {
        let (middle, mut mean_there) = (components.middle(k), vec![0.0; means.len()]);
        for p in components.runs(k).flatten() {
            for (c, means) in means.iter().enumerate() {
                found.sums[0][[c, p / width, p % width]] -= means[at].powi(2);
                if p == middle {
                    mean_there[c] = means[at];
                }
            }
            at += 1;
        }
        let variances = middles.iter().zip(mean_there).map(|(second, mean)| (second[k] - mean.powi(2)).max(0.0));
        found.middle.extend(variances);
    }
}

/// Weighted sums over images of pixels of windows, less z, or of their squares.
struct Moments {
    /// Windows and pixels as queries and as their mirror images number them, `[mirror][entry]`.
    lists: [Memory; 2],
    count: usize,
    is_squared: bool,
    /// `[probe][channel][entry]`.
    sums: Memory,
}

impl Moments {
    /// Of pixels of windows, `(window, pixel)`.
    fn new(
        known: &Known<'_>,
        stream: &Stream,
        entries: impl Iterator<Item = (usize, usize)>,
        is_squared: bool,
    ) -> Result<Self> {
        let (components, width) = (known.components, known.components.width());
        let entries: Vec<(usize, usize)> = entries.collect();
        let mirrored =
            entries.iter().map(|&(k, p)| (components.mirror_index(k), p - p % width + width - 1 - p % width));
        let both: Vec<(usize, usize)> = entries.iter().copied().chain(mirrored).collect();
        let list = |of: fn(&(usize, usize)) -> usize| {
            let values: Vec<i32> = both.iter().map(|entry| of(entry) as i32).collect();
            Memory::copy_of(stream, &values, "pixels of windows")
        };
        let len = known.batch.probe_count * known.call.bank.channels() * entries.len();
        Ok(Self {
            lists: [list(|entry| entry.0)?, list(|entry| entry.1)?],
            count: entries.len(),
            is_squared,
            sums: Memory::zeros(stream, len * 8, "moments of pixels")?,
        })
    }

    /// Adds what a slice brings under its weights.
    fn add(
        &self,
        known: &Known<'_>,
        planes: &Planes<'_>,
        queue: &mut LaunchQueue<'_, '_>,
        slice: &Slice,
    ) -> Result<()> {
        let [windows, pixels] = &self.lists;
        let entries = &WindowPixels { windows: windows.address(), pixels: pixels.address(), count: self.count as i32 };
        let (probes, count, weights) =
            (&known.batch.probes, &(known.call.components.count as i32), planes.windows.address_ref());
        let (squares, sums) = (&i32::from(self.is_squared), self.sums.address_ref());
        let args: &[_] = kernel_args![&slice.images, probes, count, weights, entries, squares, sums];
        let grid: Grid = planes.grid(self.count, known.call.bank.channels());
        // SAFETY: there is a sum for every probe, channel and entry.
        unsafe { queue.launch(&planes.kernel("plane_moments")?, grid, args) }
    }

    /// The sums of every query and its mirror image together, `[query][channel][entry]`.
    fn read(&self, known: &Known<'_>, queue: &mut LaunchQueue<'_, '_>) -> Result<Vec<Vec<Vec<f64>>>> {
        let (channels, queries) = (known.call.bank.channels(), known.batch.queries);
        queue.wait()?;
        let mut sums = vec![0.0; known.batch.probe_count * channels * self.count];
        self.sums.read(&mut sums, "moments of pixels")?;
        let of_channel = |query: usize, channel: usize| {
            let mut total = vec![0.0; self.count];
            for probe in (query..known.batch.probe_count).step_by(queries) {
                let start = (probe * channels + channel) * self.count;
                total.iter_mut().zip(&sums[start..]).for_each(|(total, sum)| *total += sum);
            }
            total
        };
        Ok((0..queries).map(|query| (0..channels).map(|channel| of_channel(query, channel)).collect()).collect())
    }
}
