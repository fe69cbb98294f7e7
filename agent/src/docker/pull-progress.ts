/** A line of the engine's answer to a pull. */
export interface PullLine {
  status?: string;
  /** Of the layer that the line is about. */
  id?: string;
  progressDetail?: { current?: number; total?: number };
  error?: string;
}

interface Layer {
  /** Bytes as the registry sends them. */
  totalBytes: number;
  downloadedBytes: number;
  extractedBytes: number;
}

/** Unpacking takes about as long as fetching. */
const DOWNLOAD_SHARE = 0.5;
/** A layer whose size is not known yet. */
const UNKNOWN_BYTES = 1024 * 1024;
const EXTRACTED = ['Pull complete', 'Already exists'];
/** What is told of a layer many times a second, and says nothing in a log. */
const REPEATED = ['Downloading', 'Extracting', 'Waiting', 'Pulling fs layer', 'Verifying Checksum'];

/** Adds up what the engine tells of the layers of one pull. */
export class PullProgress {
  readonly #layers = new Map<string, Layer>();
  /** 0 to 100, never less than before: layers whose size is not known yet would else take it back. */
  percent = 0;

  /** @returns the line as it belongs into a log, without its end; undefined for one of the many in between */
  add({ status = '', id, progressDetail }: PullLine): string | undefined {
    if (id !== undefined && status !== '' && !status.startsWith('Pulling from'))
      this.#addLayer(id, status, progressDetail);
    if (REPEATED.includes(status) || status === '') return undefined;
    return id === undefined ? status : `${id}: ${status}`;
  }

  #addLayer(id: string, status: string, detail: PullLine['progressDetail']): void {
    const layer = this.#layers.get(id) ?? { totalBytes: UNKNOWN_BYTES, downloadedBytes: 0, extractedBytes: 0 };
    this.#layers.set(id, layer);
    if (detail?.total) layer.totalBytes = detail.total;
    if (status === 'Downloading') layer.downloadedBytes = detail?.current ?? 0;
    if (status === 'Download complete') layer.downloadedBytes = layer.totalBytes;
    if (status === 'Extracting') {
      layer.downloadedBytes = layer.totalBytes;
      layer.extractedBytes = detail?.current ?? 0;
    }
    if (EXTRACTED.includes(status)) layer.downloadedBytes = layer.extractedBytes = layer.totalBytes;
    let done = 0;
    let total = 0;
    for (const { totalBytes, downloadedBytes, extractedBytes } of this.#layers.values()) {
      total += totalBytes;
      done += DOWNLOAD_SHARE * downloadedBytes + (1 - DOWNLOAD_SHARE) * extractedBytes;
    }
    this.percent = Math.max(this.percent, Math.min(100, (100 * done) / total));
  }
}
