import js from '@eslint/js';
import globals from 'globals';

export default [
  { ignores: ['**/node_modules/**'] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2022, sourceType: 'module', globals: { ...globals.browser, ...globals.node } },
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-var': 'error', 'prefer-const': 'error', 'no-unused-vars': ['error', { varsIgnorePattern: '^_' }], 'no-eval': 'error', 'no-implied-eval': 'error',
      // Texts of other users must never become markup.
      'no-restricted-properties': ['error', ...['innerHTML', 'outerHTML', 'insertAdjacentHTML'].map((property) => (
        { property, message: 'build nodes and set textContent' }
      ))],
      'max-lines': ['error', { max: 500, skipBlankLines: true }],
      'max-lines-per-function': ['error', { max: 60, skipBlankLines: true }],
    },
  },
  { files: ['**/*.test.js', '**/browser/*.js'], rules: { 'max-lines-per-function': 'off' } },
  { files: ['**/sw.js'], languageOptions: { globals: globals.serviceworker } },
];
