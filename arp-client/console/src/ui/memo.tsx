//! A part of the page that is drawn anew only when its inputs changed (or a signal it reads).

import { Component, type ComponentChild } from 'preact';

interface Props { on: readonly unknown[]; children: () => ComponentChild }

export class Memo extends Component<Props> {
  override shouldComponentUpdate(next: Props): boolean {
    return next.on.length !== this.props.on.length || next.on.some((value, index) => value !== this.props.on[index]);
  }

  override render(): ComponentChild {
    return this.props.children();
  }
}
