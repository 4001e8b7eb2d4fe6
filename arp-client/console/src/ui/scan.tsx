//! Reads a QR code with the camera: by the browser's own BarcodeDetector, else by script. Needs a secure context.

import { useEffect, useRef, useState } from 'preact/hooks';
import { t } from '../i18n';
import { Sheet } from './kit';

interface Detector { detect(source: HTMLVideoElement): Promise<{ rawValue: string }[]> }
declare global {
  var BarcodeDetector: { new (options: { formats: string[] }): Detector; getSupportedFormats(): Promise<string[]> } | undefined;
}

/** Can this browser scan at all? */
export const canScan = (): boolean => Boolean(navigator.mediaDevices?.getUserMedia);

/** The browser's own reader where it knows QR codes, else ours. */
async function detector(): Promise<Detector> {
  const Own = globalThis.BarcodeDetector;
  if (Own && (await Own.getSupportedFormats().catch((): string[] => [])).includes('qr_code')) return new Own({ formats: ['qr_code'] });
  return new (await import('./decoder')).ScriptDetector();
}

export function Scanner({ onFound, onClose }: { onFound(text: string): void; onClose(): void }) {
  const video = useRef<HTMLVideoElement>(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let live = true;
    let stream: MediaStream | undefined;
    const look = async (): Promise<void> => {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
        const screen = video.current;
        if (!live || !screen) return;
        screen.srcObject = stream;
        await screen.play();
        const reader = await detector();
        while (live) {
          const [code] = await reader.detect(screen);
          if (code?.rawValue && live) return onFound(code.rawValue);
          await new Promise((resolve) => setTimeout(resolve, 200));
        }
      } catch {
        if (live) setFailed(true);
      }
    };
    void look().finally(() => {
      if (!live) stream?.getTracks().forEach((track) => track.stop());
    });
    return () => {
      live = false;
      stream?.getTracks().forEach((track) => track.stop());
    };
  }, []);
  return (
    <Sheet title={t.scan} onClose={onClose}>
      {failed ? <p>{t.noCamera}</p> : <><p class="soft">{t.scanning}</p><video ref={video} class="camera" muted playsInline /></>}
    </Sheet>
  );
}
