//! Reads a QR code with the camera, where the browser can (BarcodeDetector, a secure context).

import { useEffect, useRef, useState } from 'preact/hooks';
import { t } from '../i18n';
import { Sheet } from './kit';

interface Detector { detect(source: HTMLVideoElement): Promise<{ rawValue: string }[]> }
declare global {
  var BarcodeDetector: (new (options: { formats: string[] }) => Detector) | undefined;
}

/** Can this browser scan at all? */
export const canScan = (): boolean => typeof globalThis.BarcodeDetector === 'function' && Boolean(navigator.mediaDevices?.getUserMedia);

export function Scanner({ onFound, onClose }: { onFound(text: string): void; onClose(): void }) {
  const video = useRef<HTMLVideoElement>(null);
  const [failed, setFailed] = useState(false);
  useEffect(() => {
    let live = true;
    let stream: MediaStream | undefined;
    const look = async (): Promise<void> => {
      try {
        stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
        const Detect = globalThis.BarcodeDetector;
        const screen = video.current;
        if (!live || !screen || !Detect) return;
        screen.srcObject = stream;
        await screen.play();
        const detector = new Detect({ formats: ['qr_code'] });
        while (live) {
          const [code] = await detector.detect(screen);
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
