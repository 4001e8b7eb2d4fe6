//! Reads QR codes in script, for browsers that cannot by themselves (Safari, Firefox, most desktops). Loaded when
//! somebody scans and not before.

import { decodeQR } from 'qr/decode.js';

/** Longest side of the picture that is looked at, in pixels: more is not read better, only later. */
const SIDE = 720;

/** The part of BarcodeDetector that the scanner uses. */
export class ScriptDetector {
  #canvas = document.createElement('canvas');
  #picture = this.#canvas.getContext('2d', { willReadFrequently: true });

  async detect(video: HTMLVideoElement): Promise<{ rawValue: string }[]> {
    const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight, 1));
    const [width, height] = [Math.round(video.videoWidth * scale), Math.round(video.videoHeight * scale)];
    if (!this.#picture || !width || !height) return [];
    this.#canvas.width = width;
    this.#canvas.height = height;
    this.#picture.drawImage(video, 0, 0, width, height);
    try {
      return [{ rawValue: decodeQR(this.#picture.getImageData(0, 0, width, height)) }];
    } catch {
      // No code in this picture.
      return [];
    }
  }
}
