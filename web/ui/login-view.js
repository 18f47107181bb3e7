// Logging in, and creating an account.

import { box, Listening } from './client.js';
import { fill, h } from './dom.js';
import { field, form, submitButton } from './forms.js';
import { currentLanguage, errorText, setLanguage, t } from './i18n.js';

class LoginView extends HTMLElement {
  #isNew = false;
  #error = h('p', { class: 'form-error', role: 'alert' });
  #listening = new Listening();

  connectedCallback() {
    const { reason } = box.status;
    const key = /** @type {any} */ (`signedOut_${reason}`);
    if (reason && ['revoked', 'expired', 'deleted'].includes(reason)) this.#error.textContent = t(key);
    this.#render();
  }

  disconnectedCallback() {
    this.#listening.end();
  }

  #render() {
    const name = field(t('name'), { autocomplete: 'username', required: true, maxlength: 50, name: 'name', value: box.account.name, autocapitalize: 'none' },
      this.#isNew ? t('nameHint') : undefined);
    const password = field(t('password'), { type: 'password', required: true, maxlength: 56, name: 'password', autocomplete: this.#isNew ? 'new-password' : 'current-password' },
      this.#isNew ? t('passwordHint') : undefined);
    const again = field(t('passwordAgain'), { type: 'password', required: true, maxlength: 56, autocomplete: 'new-password' });
    const submit = () => this.#submit(name.input.value.trim(), password.input.value, this.#isNew ? again.input.value : password.input.value);
    const other = currentLanguage() === 'zh' ? 'en' : 'zh';
    fill(this, h('main', { class: 'login' },
      h('div', { class: 'login-card' },
        h('img', { src: 'icon.svg', alt: '', width: 56, height: 56 }),
        h('h1', {}, 'RayBox'),
        h('p', { class: 'quiet' }, t('tagline')),
        form(submit, name.field, password.field, this.#isNew && again.field, this.#error, submitButton(t(this.#isNew ? 'register' : 'logIn'))),
        h('p', { class: 'login-switch' }, t(this.#isNew ? 'haveAccount' : 'noAccount'), ' ',
          h('button', { type: 'button', class: 'link-button', onclick: () => this.#turn() }, t(this.#isNew ? 'logIn' : 'register'))),
      ),
      h('button', { type: 'button', class: 'link-button login-language', lang: other === 'zh' ? 'zh-CN' : 'en', onclick: () => this.#speak(other) }, other === 'zh' ? '中文' : 'English')));
    name.input.focus();
  }

  #turn() {
    this.#isNew = !this.#isNew;
    this.#error.textContent = '';
    this.#render();
  }

  /** @param {string} language */
  #speak(language) {
    setLanguage(language);
    this.dispatchEvent(new Event('language', { bubbles: true }));
  }

  /** @param {string} name @param {string} password @param {string} again */
  async #submit(name, password, again) {
    this.#error.textContent = '';
    if (password !== again) {
      this.#error.textContent = t('passwordsDiffer');
      return;
    }
    try {
      if (this.#isNew) await box.register({ name, password });
      else await box.login({ name, password });
    } catch (error) {
      const { errno } = /** @type {any} */ (error);
      this.#error.textContent = this.#isNew && errno === 500 ? t('nameTaken') : errorText(error);
    }
  }
}

customElements.define('rb-login', LoginView);
